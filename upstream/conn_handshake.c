/* SPDX-License-Identifier: Apache-2.0
 *
 * conn_handshake.c: the bring-up of a link, without its socket. All steps leave in one write; their
 * replies are awaited one after the other before the link counts as up.
 *
 *   HELLO 3 [AUTH u p] ─┐
 *   AUTH [u] p ─────────┴─► SELECT ─► READONLY ─► CLIENT TRACKING ─► CLIENT NO-EVICT ─► CLIENT ID ─►
 *                           db != 0   readonly    tracking           vouches            asks_id
 *                           ─► INFO server ─► PING
 *                              run_id         +PONG
 *
 * Way through the file: the step table; writing the steps; reading their replies; what may be said
 * about a refusal.
 *
 * Invariants: nothing of the password stays in memory behind handshake_destroy, and nothing of it
 * gets into a text that is logged or shown. The second needs care, because servers repeat arguments
 * in their errors ("unknown command `HELLO`, with args beginning with: ...").
 *
 * PING is last so that its answer proves the whole link (C2), and CLIENT TRACKING's reply is read
 * before any fill can be sent. A server that is full answers the first step, whichever it is, with
 * an unasked error and hangs up: hence tolerated errors are remembered too.
 */
#include "upstream_priv.h"

#include "../conf/mem.h"
#include "../conf/mutant.h"
#include "../resp/write.h"

#include <inttypes.h>
#include <stdio.h>

#define USER_MAX     512
#define PASSWORD_MAX 1024
#define OUT_MAX      4096 /* all steps with the longest user and password, and to spare */
#define INFO_MAX     8192 /* of INFO's reply; what we look for is in the first few hundred bytes */
#define ARGS_MAX     5

enum step {
    STEP_HELLO,
    STEP_AUTH,
    STEP_SELECT,
    STEP_READONLY,
    STEP_TRACKING,
    STEP_NO_EVICT,
    STEP_ID,
    STEP_INFO,
    STEP_PING,
};

static const struct step_row {
    const char *name;
    const char *types; /* what a good reply may begin with */
    bool tolerant;     /* an error does not end the bring-up */
} STEPS[] = {
    [STEP_HELLO] = {"HELLO", "%", false},
    [STEP_AUTH] = {"AUTH", "+", false},
    [STEP_SELECT] = {"SELECT", "+", false},
    [STEP_READONLY] = {"READONLY", "+", true}, /* without it a replica says MOVED */
    [STEP_TRACKING] = {"CLIENT TRACKING", "+", false},
    [STEP_NO_EVICT] = {"CLIENT NO-EVICT", "+", true}, /* Redis 7.0; may be forbidden by ACL */
    [STEP_ID] = {"CLIENT ID", ":", true},
    [STEP_INFO] = {"INFO", "$=", true}, /* may be forbidden: run_id unknown */
    [STEP_PING] = {"PING", "+", false},
};

struct handshake {
    struct node *node;
    enum step steps[ARRAY_LEN(STEPS)]; /* those this link needs, in order */
    unsigned nsteps;
    unsigned at;   /* whose reply is being read */
    bool tracking; /* the link is to vouch for L1 */
    uint64_t generation;
    int64_t peer_id;
    const char *refused; /* name of the newest step with an error, "" */
    bool occupied;       /* the error that is arriving says that the server does something else */

    char out[OUT_MAX];
    size_t out_n;
    size_t out_sent;
    char user[USER_MAX];
    char password[PASSWORD_MAX];
    char text[ERR_MAX];
    char info[INFO_MAX];
    size_t info_n;
};

/* ---- Writing ------------------------------------------------------------------------------- */

static void put(struct handshake *h, struct slice s)
{
    /* All inputs have bounds that add up to less (USER_MAX, PASSWORD_MAX). */
    bug_on(s.n > sizeof(h->out) - h->out_n);
    memcpy(h->out + h->out_n, s.p, s.n);
    h->out_n += s.n;
}

static void put_header(struct handshake *h, char type, size_t n)
{
    char header[RESP_HEADER_MAX];
    put(h, slice_of(header, resp_header(header, type, (int64_t)n)));
}

static void put_step(struct handshake *h, enum step step, size_t argc, const struct slice *argv)
{
    put_header(h, '*', argc);
    for (size_t i = 0; i < argc; i++) {
        put_header(h, '$', argv[i].n);
        put(h, argv[i]);
        put(h, SLICE("\r\n"));
    }
    h->steps[h->nsteps++] = step;
}

/* RESP3 asks for HELLO, which authenticates too; RESP2 does without it, to work with any server. */
static void put_login(struct handshake *h, bool resp3)
{
    bool known = h->user[0] != '\0' || h->password[0] != '\0';
    struct slice user = slice_str(h->user);
    struct slice argv[ARGS_MAX];
    size_t n = 0;
    if (resp3) {
        argv[n++] = SLICE("HELLO");
        argv[n++] = SLICE("3");
    }
    if (known) {
        argv[n++] = SLICE("AUTH");
        if (resp3 || user.n > 0) {
            argv[n++] = user.n > 0 ? user : SLICE("default");
        }
        argv[n++] = slice_str(h->password);
    }
    if (n > 0) {
        put_step(h, resp3 ? STEP_HELLO : STEP_AUTH, n, argv);
    }
}

static void put_steps(struct handshake *h, const struct conn_options *options)
{
    put_login(h, options->resp3 || (options->tracking && options->redirect == 0));
    if (options->db != 0) {
        char db[16];
        (void)snprintf(db, sizeof(db), "%" PRIu32, options->db);
        put_step(h, STEP_SELECT, 2, (struct slice[]){SLICE("SELECT"), slice_str(db)});
    }
    if (options->readonly) {
        put_step(h, STEP_READONLY, 1, (struct slice[]){SLICE("READONLY")});
    }
    if (options->tracking) {
        char id[24];
        (void)snprintf(id, sizeof(id), "%" PRId64, options->redirect);
        put_step(h, STEP_TRACKING, options->redirect == 0 ? 3 : 5,
                 (struct slice[]){SLICE("CLIENT"), SLICE("TRACKING"), SLICE("ON"),
                                  SLICE("REDIRECT"), slice_str(id)});
    }
    if (options->vouches) {
        put_step(h, STEP_NO_EVICT, 3,
                 (struct slice[]){SLICE("CLIENT"), SLICE("NO-EVICT"), SLICE("ON")});
    }
    if (options->asks_id) {
        put_step(h, STEP_ID, 2, (struct slice[]){SLICE("CLIENT"), SLICE("ID")});
    }
    put_step(h, STEP_INFO, 2, (struct slice[]){SLICE("INFO"), SLICE("server")});
    put_step(h, STEP_PING, 1, (struct slice[]){SLICE("PING")});
}

struct handshake *handshake_create(const struct conn_options *options, char err[ERR_MAX])
{
    struct handshake *h = mem_zalloc(sizeof(*h));
    h->node = options->node;
    h->tracking = options->tracking;
    h->refused = "";
    if (!node_credentials(h->node, h->user, sizeof(h->user), h->password, sizeof(h->password),
                          err)) {
        handshake_destroy(h);
        return NULL;
    }
    put_steps(h, options);
    return h;
}

void handshake_destroy(struct handshake *h)
{
    if (h == NULL) {
        return;
    }
    explicit_bzero(h, sizeof(*h));
    mem_free(h);
}

struct slice handshake_unsent(const struct handshake *h)
{
    return slice_of(h->out + h->out_sent, h->out_n - h->out_sent);
}

void handshake_sent(struct handshake *h, size_t n)
{
    bug_on(n > h->out_n - h->out_sent);
    explicit_bzero(h->out + h->out_sent, n);
    h->out_sent += n;
}

/* ---- Refusals ------------------------------------------------------------------------------ */

/* Keeps the text of an error reply, without what it may repeat of the password. Whole words of ours
 * are found by looking for them; a server also cuts arguments short, but then quotes them, so login
 * errors end at the first quotation mark. */
static void keep_refusal(struct handshake *h, struct slice line)
{
    enum step step = h->steps[h->at];
    size_t n = line.n;
    while (n > 0 && (line.p[n - 1] == '\r' || line.p[n - 1] == '\n')) {
        n--;
    }
    size_t from = n > 0 ? 1 : 0; /* the '-' */
    size_t len = n - from < sizeof(h->text) - 1 ? n - from : sizeof(h->text) - 1;
    memcpy(h->text, line.p + from, len);
    h->text[len] = '\0';
    if (step == STEP_HELLO || step == STEP_AUTH) {
        h->text[strcspn(h->text, "`'\"")] = '\0';
    }
    /* WRONGPASS has a fixed text with the word "password" in it, which is also somebody's. */
    if (h->password[0] != '\0' && strncmp(h->text, "WRONGPASS ", 10) != 0 &&
        strstr(h->text, h->password) != NULL) {
        (void)snprintf(h->text, sizeof(h->text), "(withheld: the text repeats the password)");
    }
    for (len = strlen(h->text); len > 0 && h->text[len - 1] == ' '; len--) {
        h->text[len - 1] = '\0';
    }
    h->refused = STEPS[step].name;
}

const char *handshake_step(const struct handshake *h)
{
    return h->refused;
}

const char *handshake_text(const struct handshake *h)
{
    return h->text;
}

/* ---- Reading ------------------------------------------------------------------------------- */

static void keep_info(struct handshake *h, struct slice bytes)
{
    size_t room = sizeof(h->info) - h->info_n;
    size_t n = bytes.n < room ? bytes.n : room;
    memcpy(h->info + h->info_n, bytes.p, n);
    h->info_n += n;
}

/* The value of a "\nname:value\r" line; empty when there is none. */
static struct slice info_field(const struct handshake *h, struct slice label)
{
    const char *at = memmem(h->info, h->info_n, label.p, label.n);
    if (at == NULL) {
        return slice_of("", 0);
    }
    const char *value = at + label.n;
    const char *end = memchr(value, '\r', (size_t)(h->info + h->info_n - value));
    return end == NULL ? slice_of("", 0) : slice_of(value, (size_t)(end - value));
}

/* INFO was answered: tells the node who that is. */
static void identify(struct handshake *h)
{
    struct slice version = info_field(h, SLICE("\nredis_version:"));
    if (version.n > 0) { /* it may not say anything */
        node_note_valkey(h->node, info_field(h, SLICE("\nvalkey_version:")));
    }
    h->generation = node_identify(h->node, info_field(h, SLICE("\nrun_id:")), version);
}

static struct slice text_of(struct slice error)
{
    return error.n == 0 ? error : slice_of(error.p + 1, error.n - 1);
}

/* What a server in working order says to a PING while it does something else, and to commands in
 * clients' own words: they are to hear it, and some end it (SCRIPT KILL, AUTH). A link that vouches for
 * L1 needs the PONG (C2). */
static bool is_occupied(const struct handshake *h, struct slice error)
{
    struct slice text = text_of(error);
    return (node_text_is_occupied(text) || slice_starts(text, SLICE("NOPERM ")) ||
            slice_starts(text, SLICE("NOAUTH "))) &&
           h->steps[h->at] == STEP_PING && !h->tracking;
}

/* The last piece of a reply that was as it should be. */
static enum handshake_result finish_step(struct handshake *h, const struct reply_piece *piece)
{
    switch (h->steps[h->at]) {
    case STEP_INFO:
        identify(h);
        break;
    case STEP_ID:
        if (piece->type == ':' &&
            !slice_to_int64(slice_of(piece->bytes.p + 1, piece->bytes.n - 3), &h->peer_id)) {
            h->peer_id = 0;
        }
        break;
    case STEP_PING:
        if (!slice_eq(piece->bytes, SLICE("+PONG\r\n"))) {
            keep_refusal(h, SLICE("-not a PONG"));
            return HANDSHAKE_REFUSED;
        }
        node_note_login(h->node, false);
        break;
    default:
        break;
    }
    h->at++;
    return h->at == h->nsteps ? HANDSHAKE_DONE : HANDSHAKE_MORE;
}

/* An error is judged by its first piece; the link is not anybody's before the last has come. */
static enum handshake_result take_error(struct handshake *h, const struct reply_piece *piece)
{
    enum step step = h->steps[h->at];
    if (piece->first) {
        if (slice_starts(text_of(piece->bytes), SLICE("NOAUTH "))) {
            node_note_login(h->node, true);
            if (step == STEP_HELLO) {
                node_note_stranger(h->node, text_of(piece->bytes));
            }
        }
        h->occupied = is_occupied(h, piece->bytes);
        if (!h->occupied) {
            keep_refusal(h, piece->bytes);
        }
    }
    if (!h->occupied && !STEPS[step].tolerant && !(MUTANT(C2) && step == STEP_TRACKING)) {
        return HANDSHAKE_REFUSED;
    }
    if (!piece->last) {
        return HANDSHAKE_MORE;
    }
    if (h->occupied) {
        h->refused = "";
        h->at++;
        return HANDSHAKE_DONE;
    }
    return finish_step(h, piece);
}

enum handshake_result handshake_piece(struct handshake *h, const struct reply_piece *piece)
{
    bug_on(h->at >= h->nsteps);
    const struct step_row *row = &STEPS[h->steps[h->at]];
    if (piece->type == '-') {
        return take_error(h, piece);
    }
    if (piece->first && strchr(row->types, piece->type) == NULL) {
        keep_refusal(h, SLICE("-an answer of the wrong type"));
        return HANDSHAKE_REFUSED;
    }
    if (h->steps[h->at] == STEP_INFO) {
        keep_info(h, piece->bytes);
    }
    h->refused = "";
    return piece->last ? finish_step(h, piece) : HANDSHAKE_MORE;
}

int64_t handshake_peer_id(const struct handshake *h)
{
    return h->peer_id;
}

uint64_t handshake_generation(const struct handshake *h)
{
    return h->generation;
}
