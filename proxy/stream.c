/* SPDX-License-Identifier: Apache-2.0
 *
 * stream.c: telling messages from replies, and following what is subscribed to.
 *
 *   piece ─► not an array, or RESP3 ─────────────────────────► answer (MONITOR's lines: message)
 *         └► array ─► first element known? ─┬─ message ... ──► client_push
 *             ▲            │ no: kept       ├─ subscribe ... ► count; answer of `asking`
 *             └────────────┘                └─ anything else ► answer
 *
 * A confirmation nobody asked for (a shard channel whose slot moves) is a message. The count in a
 * confirmation is that of channels and patterns together, or of shard channels; which of the two grew
 * or shrank, its kind says. UNSUBSCRIBE without arguments is confirmed once for each channel, or once
 * if there is none: that is why the three are counted apart.
 *
 * In a cluster a client may have shard channels on several nodes, with a connection to each. Each server
 * counts those of its own; the client is told the sum.
 */
#include "stream.h"

#include "learn.h"

#include "../resp/push.h"

#include <inttypes.h>
#include <stdio.h>

/* More channels are a lie; their sum must not overflow. */
#define COUNT_MAX INT32_MAX

bool stream_is_subscription(const struct cmd *cmd)
{
    return push_confirmation(slice_str(cmd->name)) != NULL;
}

bool stream_is_sharded(const struct cmd *cmd)
{
    return strcmp(cmd->name, "ssubscribe") == 0 || strcmp(cmd->name, "sunsubscribe") == 0;
}

void stream_init(struct stream *s)
{
    chain_init(&s->confirm);
}

void stream_fini(struct stream *s)
{
    chain_fini(&s->confirm);
}

void stream_ask(struct stream *s, struct request *request, int64_t argc)
{
    const char *name = request->cmd->name;
    s->active = true;
    s->asking = request;
    s->begun = false;
    s->left = argc - 1;
    if (s->left == 0) {
        s->left = *name == 'p'                                       ? s->patterns
                  : *name == 's' && name[1] == 'u' && name[2] == 'n' ? s->shards
                                                                     : s->channels;
        s->left = s->left > 0 ? s->left : 1;
    }
}

/* ---- Counting ------------------------------------------------------------------------------- */

/* What a confirmation that ends with `end` says: ":<count>\r\n". */
static void count(struct stream *s, struct slice kind, struct slice end)
{
    size_t at = end.n < 3 ? 0 : end.n - 3;
    int64_t n;
    while (at > 0 && end.p[at] != ':') {
        at--;
    }
    if (end.n < 4 || end.p[at] != ':' ||
        !slice_to_int64(slice_of(end.p + at + 1, end.n - at - 3), &n) || n < 0 || n > COUNT_MAX) {
        return;
    }
    if (slice_eq(kind, SLICE("ssubscribe")) || slice_eq(kind, SLICE("sunsubscribe"))) {
        s->shards = n;
    } else if (kind.p[0] == 'p') {
        s->patterns = n > s->channels ? n - s->channels : 0;
    } else {
        s->channels = n > s->patterns ? n - s->patterns : 0;
    }
}

static bool is_asked_for(const struct stream *s, struct slice kind)
{
    return s->asking != NULL && slice_eq(kind, slice_str(s->asking->cmd->name));
}

/* A reply that is neither. Nothing else was on its way when `asking` was sent, and nothing follows it
 * before it is answered, so with the last byte it is answered, and may be freed. */
static void answer(struct stream *s, struct conn *conn, const struct reply_piece *piece)
{
    if (piece->last) {
        s->asking = NULL;
    }
    conn_answer(conn, piece);
}

/* One confirmation, or a part of it, goes to the request that asked. */
static void confirm(struct stream *s, struct conn *conn, struct reply_piece piece)
{
    bool ends = piece.last;
    piece.first = !s->begun;
    piece.last = ends && s->left == 1;
    s->begun = true;
    if (ends) {
        s->left--;
    }
    if (piece.last) {
        s->asking = NULL; /* it may be freed by what follows */
    }
    conn_answer(conn, &piece);
}

/* Is the confirmation's number not what the client is to see? */
static bool is_recounted(const struct stream *s, struct slice kind)
{
    return s->elsewhere > 0 && kind.p[0] == 's' && (kind.p[1] == 's' || kind.p[2] == 'n');
}

/* s->confirm is a whole confirmation; it is handed on with the sum in it. */
static void hand_on_recounted(struct stream *s, struct conn *conn, struct client *c, char type)
{
    char count[STREAM_TAIL];
    struct blob *blob = blob_try(s->confirm.bytes + sizeof(count));
    if (blob == NULL) {
        if (c != NULL) {
            client_close(c);
        }
        return;
    }
    size_t n = s->confirm.bytes;
    chain_take(&s->confirm, blob->p);
    while (n > 0 && blob->p[n - 1] != ':') {
        n--;
    }
    int digits = snprintf(count, sizeof(count), "%" PRId64 "\r\n", s->shards + s->elsewhere);
    memcpy(blob->p + n, count, (size_t)digits);
    struct slice bytes = slice_of(blob->p, n + (size_t)digits);
    if (is_asked_for(s, s->kind)) {
        confirm(s, conn,
                (struct reply_piece){
                    .bytes = bytes, .type = type, .first = true, .last = true, .size = -1});
    } else if (c != NULL) {
        client_push(c, bytes);
    }
    blob_unref(blob);
}

/* A part of one. */
static void recount(struct stream *s, struct conn *conn, struct client *c, struct slice bytes,
                    char type, bool last)
{
    if (!chain_append(&s->confirm, bytes)) {
        if (c != NULL) {
            client_close(c);
        }
    } else if (last) {
        hand_on_recounted(s, conn, c, type);
    }
}

/* ---- RESP3 ---------------------------------------------------------------------------------- */

void stream_push(struct stream *s, struct conn *conn, struct client *c, const struct push *push)
{
    const struct slice *kind = push_confirmation(push->kind);
    if (kind != NULL) {
        count(s, *kind, push->bytes);
        if (is_recounted(s, *kind)) {
            s->kind = *kind;
            recount(s, conn, c, push->bytes, '>', true);
            return;
        }
        if (is_asked_for(s, *kind)) {
            confirm(
                s, conn,
                (struct reply_piece){
                    .bytes = push->bytes, .type = '>', .first = true, .last = true, .size = -1});
            return;
        }
    }
    if (c != NULL) {
        client_push(c, push->bytes);
    }
}

/* ---- RESP2, and MONITOR --------------------------------------------------------------------- */

/* The first element of an array that begins with `head`, if that is a bulk string and whole. */
static struct slice first_element(struct slice head)
{
    const char *end = head.p + head.n;
    const char *p = memchr(head.p, '\n', head.n);
    if (p == NULL || end - p < 2 || p[1] != '$') {
        return SLICE("");
    }
    p = memchr(p + 1, '\n', (size_t)(end - p - 1));
    const char *cr = p == NULL ? NULL : memchr(p, '\r', (size_t)(end - p));
    return cr == NULL ? SLICE("") : slice_of(p + 1, (size_t)(cr - p - 1));
}

bool stream_is_message(struct slice push)
{
    return push.n > 0 && *push.p == '>' && push_message(first_element(push)) != NULL;
}

void stream_executed(struct stream *s, const struct cmd *cmd, struct slice confirmation)
{
    s->active = true;
    count(s, slice_str(cmd->name), confirmation);
}

/* Who is subscribed to nothing gets replies only, whatever they begin with. */
static void decide(struct stream *s, struct slice head)
{
    bool expects = s->asking != NULL || s->channels + s->patterns + s->shards > 0;
    struct slice word = expects ? first_element(head) : SLICE("");
    const struct slice *kind = push_confirmation(word);
    s->ntail = 0;
    if (kind != NULL) {
        s->kind = *kind;
        s->phase = STREAM_CONFIRM;
    } else if (push_message(word) != NULL) {
        s->phase = STREAM_MESSAGE;
    } else {
        s->phase = STREAM_ANSWER;
    }
}

static void keep_tail(struct stream *s, struct slice bytes)
{
    if (bytes.n >= STREAM_TAIL) {
        memcpy(s->tail, bytes.p + bytes.n - STREAM_TAIL, STREAM_TAIL);
        s->ntail = STREAM_TAIL;
        return;
    }
    size_t keep = s->ntail + bytes.n > STREAM_TAIL ? STREAM_TAIL - bytes.n : s->ntail;
    memmove(s->tail, s->tail + s->ntail - keep, keep);
    memcpy(s->tail + keep, bytes.p, bytes.n);
    s->ntail = keep + bytes.n;
}

/* Part of an array whose phase is known. */
static void hand_on(struct stream *s, struct conn *conn, struct client *c,
                    const struct reply_piece *piece)
{
    if (s->phase == STREAM_ANSWER) {
        answer(s, conn, piece);
        return;
    }
    if (s->phase == STREAM_CONFIRM) {
        keep_tail(s, piece->bytes);
        if (piece->last) {
            count(s, s->kind, slice_of(s->tail, s->ntail));
        }
        if (is_recounted(s, s->kind)) {
            recount(s, conn, c, piece->bytes, '*', piece->last);
            return;
        }
        if (is_asked_for(s, s->kind)) {
            confirm(s, conn, *piece);
            return;
        }
    }
    s->inside = !piece->last;
    if (c != NULL) {
        client_push(c, piece->bytes);
        if (piece->last && c->stalled) {
            client_mark_runnable(c); /* it may have waited for the end of this */
        }
    }
}

/* True: kept, more is needed. */
static bool keep_head(struct stream *s, const struct reply_piece *piece)
{
    size_t n = piece->bytes.n;
    if (piece->last || n >= STREAM_HEAD - s->nhead) {
        return false;
    }
    memcpy(s->head + s->nhead, piece->bytes.p, n);
    s->nhead += n;
    return true;
}

/* With this piece there is enough of the array to tell what it is. */
static void decide_and_hand_on(struct stream *s, struct conn *conn, struct client *c,
                               const struct reply_piece *piece)
{
    char look[STREAM_HEAD];
    size_t held = s->nhead;
    size_t more = piece->bytes.n < sizeof(look) - held ? piece->bytes.n : sizeof(look) - held;
    memcpy(look, s->head, held);
    memcpy(look + held, piece->bytes.p, more);
    decide(s, slice_of(look, held + more));
    struct reply_piece rest = *piece;
    rest.first = held == 0;
    if (held > 0) {
        struct reply_piece start = {
            .bytes = {look, held}, .type = piece->type, .first = true, .size = -1};
        s->nhead = 0;
        hand_on(s, conn, c, &start);
    }
    hand_on(s, conn, c, &rest);
}

/* `+1700000000.123456 [0 127.0.0.1:4711] "get" "k"` */
static bool is_monitor_line(const struct stream *s, const struct reply_piece *piece)
{
    return s->monitoring && piece->type == '+' && piece->bytes.n > 4 && piece->bytes.p[1] >= '0' &&
           piece->bytes.p[1] <= '9';
}

/* Of `...[0 127.0.0.1:4711] "get" "k"`: 4711; 0: there is no port (a script, a Unix socket). *said: what stands
 * behind it, with the first quote gone. */
static uint16_t port_of(struct slice line, struct slice *said)
{
    const char *end = memmem(line.p, line.n, "] \"", 3);
    const char *colon = end == NULL ? NULL : memrchr(line.p, ':', (size_t)(end - line.p));
    int64_t port;
    if (colon == NULL || !slice_to_int64(slice_of(colon + 1, (size_t)(end - colon - 1)), &port) ||
        port < 1 || port > UINT16_MAX) {
        return 0;
    }
    *said = slice_of(end + 3, (size_t)(line.p + line.n - end) - 3);
    return (uint16_t)port;
}

/* What Nearside asks for itself is not what its clients do; a fetch is the GET of a client. */
static bool is_upkeep(struct slice line)
{
    static const char *const greetings[] = {
        "PING\"\r\n",     "SELECT\" ", "HELLO\" ",
        "READONLY\"\r\n", "CLIENT\" ", "INFO\" \"server\"\r\n",
    };
    struct slice said = SLICE("");
    enum port_use use = own_ports_use(port_of(line, &said));
    if (use == PORT_OTHER || use == PORT_UPKEEP) {
        return use == PORT_UPKEEP;
    }
    for (size_t i = 0; i < ARRAY_LEN(greetings); i++) {
        if (slice_starts(said, slice_str(greetings[i]))) {
            return true;
        }
    }
    return slice_starts(said, SLICE(LEARN_WORD "\"\r\n")) ||
           (use == PORT_FILL && slice_starts(said, SLICE("PTTL\" ")));
}

bool stream_stray(struct stream *s, struct conn *conn, struct client *c,
                  const struct reply_piece *piece)
{
    if (!s->active) {
        return false;
    }
    if (piece->first) {
        bool is_line = is_monitor_line(s, piece);
        bool is_hidden = /* unlike messages, lines are replies to Redis */
            is_line && ((c != NULL && c->replies_off) || is_upkeep(piece->bytes));
        s->nhead = 0;
        s->phase = piece->type == '*' && !piece->is_null && !s->resp3 ? STREAM_HEADING
                   : !is_line                                         ? STREAM_ANSWER
                   : is_hidden                                        ? STREAM_HIDDEN
                                                                      : STREAM_MESSAGE;
    }
    if (s->phase == STREAM_HIDDEN) {
        return true;
    }
    if (s->phase == STREAM_HEADING) {
        if (!keep_head(s, piece)) {
            decide_and_hand_on(s, conn, c, piece);
        }
        return true;
    }
    hand_on(s, conn, c, piece);
    return true;
}
