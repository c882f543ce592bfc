/* SPDX-License-Identifier: Apache-2.0
 *
 * role.c: a control connection and a timer. One question at a time; a connection that is lost is
 * an answer of its own (`silent`), and comes back by itself.
 */
#include "role.h"

#include "control.h"

#include "../conf/mem.h"

#include <stdio.h>

struct role {
    struct role_options options;
    struct control *control;
    ev_timer timer;
    bool asking;
};

static void on_answer(struct control *c, const struct answer *answer, void *ctx)
{
    struct role *role = ctx;
    char why[ERR_MAX];
    (void)c;
    role->asking = false;
    if (answer == NULL) {
        return; /* on_down follows */
    }
    ev_timer_again(role->options.loop, &role->timer);
    if (answer->type == ANSWER_LIST && answer->nitems > 0 && answer->items[0].type == ANSWER_TEXT) {
        role->options.said(answer_is(&answer->items[0], "master"), answer, role->options.ctx);
        return;
    }
    (void)snprintf(why, sizeof(why), "ROLE: %.*s",
                   answer->type != ANSWER_ERROR ? 13
                   : answer->text.n > 200       ? 200
                                                : (int)answer->text.n,
                   answer->type != ANSWER_ERROR ? "an odd answer" : answer->text.p);
    role->options.silent(why, role->options.ctx);
}

static void ask(struct role *role)
{
    if (control_is_up(role->control) && !role->asking) {
        role->asking = true;
        control_ask(role->control, (const char *const[]){"ROLE", NULL}, on_answer, role);
    }
}

static void on_up(struct control *c, void *ctx)
{
    (void)c;
    ask(ctx);
}

static void on_down(struct control *c, const char *why, void *ctx)
{
    struct role *role = ctx;
    (void)c;
    role->options.silent(why, role->options.ctx);
}

static void on_timer(struct ev_loop *loop, ev_timer *timer, int events)
{
    (void)loop;
    (void)events;
    ask(container_of(timer, struct role, timer));
}

struct role *role_create(const struct role_options *options)
{
    struct role *role = mem_zalloc(sizeof(*role));
    role->options = *options;
    ev_timer_init(&role->timer, on_timer, 0., (double)options->every_ms / 1000.);
    role->control = control_create(&(struct control_options){
        .loop = options->loop,
        .node = options->node,
        .deadline_ms = options->deadline_ms,
        .now = options->now,
        .up = on_up,
        .down = on_down,
        .ctx = role,
    });
    return role;
}

void role_destroy(struct role *role)
{
    if (role == NULL) {
        return;
    }
    ev_timer_stop(role->options.loop, &role->timer);
    control_destroy(role->control);
    mem_free(role);
}

void role_hurry(struct role *role)
{
    control_hurry(role->control);
    ask(role);
}
