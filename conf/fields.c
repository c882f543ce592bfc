/* SPDX-License-Identifier: Apache-2.0
 *
 * fields.c: between a row of the options table and its field in struct conf. The row knows the
 * field's offset and, by its kind, its C type; nobody else casts.
 *
 * A LIST's items and a STRING belong to the struct conf; they are wiped before they are freed,
 * because one of them may be a password.
 *
 * One thread while a configuration is put together; it is only read afterwards. Values arrive here
 * checked (values.c): numbers fit into their fields because their row's bounds do.
 */
#include "conf_priv.h"

#include "mem.h"

#include <string.h>

static void *field_of(struct conf *conf, const struct option *option)
{
    return (char *)conf + option->offset;
}

static const void *const_field_of(const struct conf *conf, const struct option *option)
{
    return (const char *)conf + option->offset;
}

uint64_t conf_number(const struct conf *conf, const struct option *option)
{
    const void *field = const_field_of(conf, option);
    switch (option->kind) {
    case OPTION_INT:
        return *(const uint32_t *)field;
    case OPTION_SIZE:
        return *(const size_t *)field;
    case OPTION_DURATION:
        return (uint64_t)(*(const int64_t *)field);
    case OPTION_CHOICE:
        return (uint64_t)(*(const int *)field);
    case OPTION_BOOL:
        return *(const bool *)field;
    case OPTION_STRING:
    case OPTION_LIST:
        break;
    }
    bug_on(true);
    return 0;
}

char *const *conf_string(const struct conf *conf, const struct option *option)
{
    return const_field_of(conf, option);
}

const struct conf_list *conf_strings(const struct conf *conf, const struct option *option)
{
    return const_field_of(conf, option);
}

static char *copy_text(const struct value *value)
{
    char *copy = mem_alloc(value->length + 1);
    memcpy(copy, value->text, value->length);
    copy[value->length] = '\0';
    return copy;
}

void conf_wipe(char *text)
{
    if (text != NULL) {
        explicit_bzero(text, strlen(text));
    }
    mem_free(text);
}

static void clear_items(struct conf_list *list)
{
    for (size_t i = 0; i < list->n; i++) {
        conf_wipe(list->items[i]);
    }
    mem_free(list->items);
    *list = (struct conf_list){0};
}

/* False when it is in the list already. */
static bool append_item(struct conf_list *list, const struct value *value)
{
    for (size_t i = 0; i < list->n; i++) {
        if (strcmp(list->items[i], value->text) == 0) {
            return false;
        }
    }
    char **items = mem_alloc((list->n + 1) * sizeof(*items));
    if (list->n > 0) {
        memcpy(items, list->items, list->n * sizeof(*items));
    }
    items[list->n] = copy_text(value);
    mem_free(list->items);
    list->items = items;
    list->n++;
    return true;
}

bool conf_store(struct conf *conf, const struct option *option, const struct value *value)
{
    void *field = field_of(conf, option);
    switch (option->kind) {
    case OPTION_INT:
        *(uint32_t *)field = (uint32_t)value->number;
        break;
    case OPTION_SIZE:
        *(size_t *)field = (size_t)value->number;
        break;
    case OPTION_DURATION:
        *(int64_t *)field = (int64_t)value->number;
        break;
    case OPTION_CHOICE:
        *(int *)field = (int)value->number;
        break;
    case OPTION_BOOL:
        *(bool *)field = value->number != 0;
        break;
    case OPTION_STRING:
        conf_wipe(*(char **)field);
        *(char **)field = copy_text(value);
        break;
    case OPTION_LIST:
        return append_item(field, value);
    }
    return true;
}

void conf_clear_list(struct conf *conf, const struct option *option)
{
    clear_items(field_of(conf, option));
}

void conf_destroy(struct conf *conf)
{
    if (conf == NULL) {
        return;
    }
    for (size_t i = 0; i < OPTION_COUNT; i++) {
        void *field = field_of(conf, &option_table[i]);
        if (option_table[i].kind == OPTION_STRING) {
            conf_wipe(*(char **)field);
        } else if (option_table[i].kind == OPTION_LIST) {
            clear_items(field);
        }
    }
    mem_free(conf);
}
