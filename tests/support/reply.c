/* SPDX-License-Identifier: Apache-2.0
 *
 * reply.c: a reader of RESP that trusts nothing: it is used on a proxy whose upstream lies. Strict:
 * only the types a Redis sends, lengths that are numbers, and limits on depth and size, so that a
 * wrong byte shows as garbage and not as a hang. What is RESP3 shows as such: who expects RESP2 sees
 * the difference. Recursive; aggregates nest at most DEPTH_MAX deep.
 */
#include "reply.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DEPTH_MAX 32
#define BULK_MAX  ((long long)1024 * 1024 * 1024)
#define ITEMS_MAX ((long long)INT32_MAX)
#define SHOWN_MAX 1000

static const char TYPES[] = "+-:$*_#,(=%~>";
static const char LINES[] = "+-_#,("; /* whose text is the rest of the line */
static const char AGGREGATES[] = "*%~>";

static struct reply *create(int type)
{
    struct reply *reply = calloc(1, sizeof(*reply));

    if (reply == NULL) {
        abort();
    }
    reply->type = type;
    return reply;
}

static void set_text(struct reply *reply, const char *p, size_t n)
{
    reply->text = malloc(n + 1);
    if (reply->text == NULL) {
        abort();
    }
    memcpy(reply->text, p, n);
    reply->text[n] = '\0';
    reply->n = n;
}

static struct reply *garbage(struct reply *reply, const char *line, size_t n)
{
    reply_free(reply);
    reply = create(REPLY_GARBAGE);
    set_text(reply, line, n);
    return reply;
}

static bool parse_integer(const char *p, size_t n, long long *out)
{
    char digits[24];
    char *end;

    if (n == 0 || n >= sizeof(digits) || (p[0] != '-' && (p[0] < '0' || p[0] > '9'))) {
        return false;
    }
    memcpy(digits, p, n);
    digits[n] = '\0';
    *out = strtoll(digits, &end, 10);
    return *end == '\0' && end != digits;
}

static struct reply *read_nested(const struct reply_source *s, int depth);

static struct reply *read_bulk(const struct reply_source *s, struct reply *reply, long long n)
{
    int why = 0;
    const char *p = s->bytes(s->ctx, (size_t)n + 2, &why);

    if (p == NULL) {
        reply->type = why == REPLY_CLOSED ? REPLY_CUT : why;
        return reply;
    }
    if (p[n] != '\r' || p[n + 1] != '\n') {
        return garbage(reply, "a bulk that does not end in CRLF", 32);
    }
    set_text(reply, p, (size_t)n);
    return reply;
}

/* The array grows with what arrives: its announced length may be a lie. */
static void append(struct reply *reply, struct reply *item)
{
    size_t n = reply->items;

    if ((n & (n - 1)) == 0) {
        struct reply **more = realloc(reply->item, (n > 0 ? 2 * n : 1) * sizeof(*more));
        if (more == NULL) {
            abort();
        }
        reply->item = more;
    }
    reply->item[reply->items++] = item;
}

static struct reply *read_array(const struct reply_source *s, struct reply *reply, long long n,
                                int depth)
{
    for (long long i = 0; i < n; i++) {
        struct reply *item = read_nested(s, depth + 1);
        append(reply, item);
        if (strchr(TYPES, item->type) == NULL) {
            /* what ended the element ended the whole */
            int type = item->type == REPLY_CLOSED ? REPLY_CUT : item->type;
            struct reply *bad = create(type);
            if (item->text != NULL) {
                set_text(bad, item->text, item->n);
            }
            reply_free(reply);
            return bad;
        }
    }
    return reply;
}

static struct reply *read_nested(const struct reply_source *s, int depth)
{
    size_t n = 0;
    int why = 0;
    const char *line = s->line(s->ctx, &n, &why);

    if (line == NULL) {
        return create(why);
    }
    if (n == 0 || line[0] == '\0' || strchr(TYPES, line[0]) == NULL) {
        return garbage(NULL, line, n);
    }
    struct reply *reply = create(line[0]);
    if (strchr(LINES, line[0]) != NULL) {
        set_text(reply, line + 1, n - 1);
        return reply;
    }
    long long number;
    if (!parse_integer(line + 1, n - 1, &number)) {
        return garbage(reply, line, n);
    }
    if (line[0] == ':') {
        reply->integer = number;
        return reply;
    }
    bool is_bulk = strchr(AGGREGATES, line[0]) == NULL;
    bool may_be_null = line[0] == '$' || line[0] == '*';
    if (number < (may_be_null ? -1 : 0) || number > (is_bulk ? BULK_MAX : ITEMS_MAX) ||
        depth >= DEPTH_MAX) {
        return garbage(reply, line, n);
    }
    if (number == -1) {
        reply->null = true;
        return reply;
    }
    if (is_bulk) {
        return read_bulk(s, reply, number);
    }
    return read_array(s, reply, line[0] == '%' ? 2 * number : number, depth);
}

struct reply *reply_read(const struct reply_source *source)
{
    return read_nested(source, 0);
}

void reply_free(struct reply *reply)
{
    if (reply == NULL) {
        return;
    }
    for (size_t i = 0; i < reply->items; i++) {
        reply_free(reply->item[i]);
    }
    free(reply->item);
    free(reply->text);
    free(reply);
}

static void show(const struct reply *reply, FILE *out)
{
    switch (reply->type) {
    case '+':
    case '-':
    case '_':
    case '#':
    case ',':
    case '(':
        fputc(reply->type, out);
        fwrite(reply->text, 1, reply->n, out);
        break;
    case ':':
        fprintf(out, ":%lld", reply->integer);
        break;
    case '$':
    case '=':
        if (reply->null) {
            fputs("nil", out);
        } else if (reply->n > SHOWN_MAX) {
            fprintf(out, "%c(%zu bytes)", reply->type, reply->n);
        } else {
            fputc(reply->type, out);
            fwrite(reply->text, 1, reply->n, out);
        }
        break;
    case '*':
    case '%':
    case '~':
    case '>':
        if (reply->null) {
            fputs("nil array", out);
            break;
        }
        if (reply->type != '*') {
            fputc(reply->type, out);
        }
        fputc('[', out);
        for (size_t i = 0; i < reply->items; i++) {
            if (i > 0) {
                fputc(' ', out);
            }
            show(reply->item[i], out);
        }
        fputc(']', out);
        break;
    case REPLY_CLOSED:
        fputs("closed", out);
        break;
    case REPLY_CUT:
        fputs("cut", out);
        break;
    case REPLY_TIMEOUT:
        fputs("timeout", out);
        break;
    default:
        fprintf(out, "garbage %.100s", reply->text != NULL ? reply->text : "");
        break;
    }
}

char *reply_show(const struct reply *reply)
{
    char *text = NULL;
    size_t n = 0;
    FILE *out = open_memstream(&text, &n);

    if (out == NULL) {
        abort();
    }
    show(reply, out);
    fclose(out);
    return text;
}
