/* SPDX-License-Identifier: Apache-2.0
 *
 * learn.h: worker 0 asks the server for its commands (COMMAND), so that those that are not built in
 * get rows of their own (resp/learnt.h). It asks when its lane in upstream.db has come up anew, when
 * another server answers, and when a MODULE command that went through here has been answered; on its
 * bulk lane, so that no request waits behind the reply. Worker 0's thread only, but for
 * learn_again.
 */
#pragma once

#include "../resp/cmd.h"
#include "../upstream/conn.h"

struct worker;

/* The question, in letters that no client uses: MONITOR shows what clients ask on the same connection. */
#define LEARN_WORD "Command"

/* One question at a time. What it is about was read before it was sent. */
struct learner {
    struct call call;
    uint16_t node; /* which was asked last */
    enum { LEARN_IDLE, LEARN_ASKING } state;
    char *bytes; /* of the reply so far */
    size_t n, size;
    const char *unfit; /* why the reply is of no use; it is not collected */
    int64_t link;      /* conn_handshake_sent of the lane whose coming up was the reason */
    uint64_t epoch;    /* learnt_epoch */
    int64_t next_ms;   /* after a loss: not before */
    int64_t delay_ms;
    bool warned; /* of a refusal; until it is answered again */
    bool warned_full;
};

/* Asks if there is a reason to. Every tick. */
void learn_tick(struct worker *worker);

/* Is it MODULE LOAD, LOADEX or UNLOAD, or a transaction (`flushes`) that may hold one? */
bool learn_is_due(const struct cmd *cmd, bool flushes);
/* The reply to one is here, or lost: what was learnt is forgotten, and asked for again. Before the
 * reply is released. Any thread. */
void learn_again(void);
