/* SPDX-License-Identifier: Apache-2.0
 *
 * test_control.c: what control.h promises: questions and answers, deadlines, and peers that say what
 * nobody asked for, too much, or nothing.
 */
#include "../live.h"

#include "../../../upstream/control.h"
#include "../../../upstream/resolver.h"

#include <stdatomic.h>

static struct fake fake;
static struct node *node;
static struct control *control;
static int ups;
static int downs;
static int lost;
static char why_down[ERR_MAX];
static char seen[4096]; /* the answer last given, or the message, as text */
static bool destroys;

static void on_up(struct control *c, void *ctx)
{
    (void)c;
    (void)ctx;
    ups++;
}

static void on_down(struct control *c, const char *why, void *ctx)
{
    (void)ctx;
    downs++;
    (void)snprintf(why_down, sizeof(why_down), "%s", why);
    if (destroys) {
        control_destroy(c);
        control = NULL;
    }
}

static void on_message(struct control *c, struct slice channel, struct slice text, void *ctx)
{
    (void)c;
    (void)ctx;
    (void)snprintf(seen, sizeof(seen), "%.*s: %.*s", (int)channel.n, channel.p, (int)text.n,
                   text.p);
}

static void show(const struct answer *a)
{
    size_t n = strlen(seen);
    switch (a->type) {
    case ANSWER_NIL:
        (void)snprintf(seen + n, sizeof(seen) - n, "nil ");
        break;
    case ANSWER_TEXT:
    case ANSWER_ERROR:
        (void)snprintf(seen + n, sizeof(seen) - n, "%s%.*s ", a->type == ANSWER_ERROR ? "-" : "",
                       a->text.n > 64 ? 64 : (int)a->text.n, a->text.p);
        break;
    case ANSWER_NUMBER:
        (void)snprintf(seen + n, sizeof(seen) - n, "%lld ", (long long)a->number);
        break;
    case ANSWER_LIST:
        (void)snprintf(seen + n, sizeof(seen) - n, "[ ");
        for (size_t i = 0; i < a->nitems; i++) {
            show(&a->items[i]);
        }
        n = strlen(seen);
        (void)snprintf(seen + n, sizeof(seen) - n, "] ");
        break;
    }
}

static void on_answer(struct control *c, const struct answer *answer, void *ctx)
{
    (void)ctx;
    seen[0] = '\0';
    if (answer == NULL) {
        lost++;
    } else {
        show(answer);
    }
    if (destroys) {
        control_destroy(c);
        control = NULL;
    }
}

static void begin_at(const struct node_options *at, bool resp3, int64_t deadline_ms)
{
    live_start();
    ups = downs = lost = 0;
    destroys = false;
    node = node_create(at);
    control = control_create(&(struct control_options){.loop = live_loop,
                                                       .node = node,
                                                       .resp3 = resp3,
                                                       .deadline_ms = deadline_ms,
                                                       .now = live_now,
                                                       .up = on_up,
                                                       .down = on_down,
                                                       .message = on_message});
}

static void begin(bool resp3, int64_t deadline_ms, const char *password)
{
    char port[8];
    fake_open(&fake);
    (void)snprintf(port, sizeof(port), "%d", fake.port);
    begin_at(&(struct node_options){.host = "127.0.0.1", .port = port, .password = password}, resp3,
             deadline_ms);
    fake_accept(&fake);
}

static void end(void)
{
    control_destroy(control);
    node_destroy(node);
    fake_close(&fake);
    live_stop();
}

static void come_up(void)
{
    begin(false, 2000, NULL);
    fake_expect(&fake, "PING\r\n");
    fake_say(&fake, "+PONG\r\n");
    WAIT_FOR(ups == 1);
}

static void ask(const char *word)
{
    control_ask(control, (const char *const[]){word, NULL}, on_answer, NULL);
    fake_expect(&fake, word);
}

static void answer_and_expect(const char *wire, const char *text)
{
    ask("QUESTION");
    seen[0] = '\0';
    fake_say(&fake, wire);
    WAIT_FOR(seen[0] != '\0');
    cr_assert_str_eq(seen, text);
}

Test(control, answers_of_every_type_come_as_a_tree)
{
    come_up();
    answer_and_expect("$5\r\nhello\r\n", "hello ");
    answer_and_expect(":-7\r\n", "-7 ");
    answer_and_expect("$-1\r\n", "nil ");
    answer_and_expect("*-1\r\n", "nil ");
    answer_and_expect("-ERR no\r\n", "-ERR no ");
    answer_and_expect("*0\r\n", "[ ] ");
    answer_and_expect("*2\r\n*2\r\n:1\r\n$1\r\na\r\n+b\r\n", "[ [ 1 a ] b ] ");
    answer_and_expect("%1\r\n+k\r\n~1\r\n#t\r\n", "[ k [ 1 ] ] ");
    answer_and_expect(",1.5\r\n", "1.5 ");
    end();
}

Test(control, answers_come_in_the_order_of_the_questions)
{
    come_up();
    ask("ONE");
    ask("TWO");
    fake_say(&fake, "+1\r\n");
    WAIT_FOR(strcmp(seen, "1 ") == 0);
    fake_say(&fake, "+2\r\n");
    WAIT_FOR(strcmp(seen, "2 ") == 0);
    end();
}

Test(control, logs_in_and_hears_messages)
{
    begin(true, 2000, "secret");
    fake_expect(&fake, "HELLO\r\n$1\r\n3\r\n$4\r\nAUTH\r\n$7\r\ndefault\r\n$6\r\nsecret\r\n");
    fake_say(&fake, "%1\r\n+proto\r\n:3\r\n");
    WAIT_FOR(ups == 1);
    ask("SUBSCRIBE");
    fake_say(&fake, ">3\r\n+subscribe\r\n+c\r\n:1\r\n");
    WAIT_FOR(strncmp(seen, "[ subscribe", 11) == 0);
    ask("QUESTION");
    fake_say(&fake, ">3\r\n+message\r\n+c\r\n+text\r\n");
    WAIT_FOR(strcmp(seen, "c: text") == 0);
    fake_say(&fake, "+answer\r\n");
    WAIT_FOR(strcmp(seen, "answer ") == 0);
    end();
}

Test(control, refused_login_is_told_without_the_password)
{
    begin(true, 2000, "secret");
    fake_say(&fake, "-ERR unknown command 'HELLO', with args beginning with: '3' 'secret'\r\n");
    WAIT_FOR(downs == 1);
    cr_assert_str_eq(why_down, "login refused: ERR unknown command ");
    end();
}

static void expect_given_up(const char *wire, const char *why)
{
    come_up();
    fake_say(&fake, wire);
    WAIT_FOR(downs == 1);
    cr_assert_str_eq(why_down, why);
    fake_accept(&fake); /* and it comes again */
    end();
}

Test(control, what_nobody_asked_for_ends_the_link_only)
{
    expect_given_up("+HI\r\n", "the server said something nobody had asked for");
    expect_given_up("*3\r\n$7\r\nmessage\r\n:1\r\n:2\r\n",
                    "the server said something nobody had asked for");
    expect_given_up("-ERR max number of clients reached\r\n", "ERR max number of clients reached");
}

Test(control, odd_pushes_are_ignored)
{
    come_up();
    fake_say(&fake, ">0\r\n>1\r\n:1\r\n>3\r\n+message\r\n:1\r\n*0\r\n>2\r\n+message\r\n$-1\r\n");
    answer_and_expect("+still here\r\n", "still here ");
    end();
}

static void expect_refused(const char *wire, const char *why)
{
    come_up();
    ask("QUESTION");
    fake_say(&fake, wire);
    WAIT_FOR(lost == 1);
    WAIT_FOR(downs == 1);
    cr_assert_str_eq(why_down, why);
    end();
}

Test(control, answers_have_bounds)
{
    expect_refused("*100000000\r\n", "the server's answer is too large");
    expect_refused("*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n",
                   "the server's answer is nested too deeply");
    expect_refused("!nonsense\r\n", "Protocol error, got \"!\" as reply type byte");
}

Test(control, question_without_an_answer_ends_the_link)
{
    begin(false, 200, NULL);
    fake_expect(&fake, "PING\r\n");
    fake_say(&fake, "+PONG\r\n");
    WAIT_FOR(ups == 1);
    ask("QUESTION");
    WAIT_FOR(downs == 1);
    cr_assert_eq(lost, 1);
    cr_assert_str_eq(why_down, "it did not answer in time");
    end();
}

Test(control, idle_link_has_no_deadline)
{
    begin(false, 50, NULL);
    fake_expect(&fake, "PING\r\n");
    fake_say(&fake, "+PONG\r\n");
    WAIT_FOR(ups == 1);
    live_run_for(200);
    cr_assert_eq(downs, 0);
    end();
}

Test(control, may_be_destroyed_from_its_callbacks)
{
    come_up();
    destroys = true;
    ask("QUESTION");
    fake_say(&fake, "+answer\r\n+more\r\n");
    WAIT_FOR(control == NULL);
    live_run_for(20);
    end();
    come_up();
    destroys = true;
    fake_hang_up(&fake);
    WAIT_FOR(control == NULL);
    live_run_for(20);
    cr_assert_eq(downs, 1);
    end();
}

Test(control, server_that_is_away_is_tried_again)
{
    come_up();
    fake_hang_up(&fake);
    WAIT_FOR(downs == 1);
    fake_accept(&fake);
    fake_expect(&fake, "PING\r\n");
    fake_say(&fake, "+PONG\r\n");
    WAIT_FOR(ups == 2);
    end();
}

/* ---- Names ---------------------------------------------------------------------------------- */

/* A name service of our own: answers with a loopback port, as soon as it may. */
static struct resolver *names;
static atomic_int named_port;
static atomic_bool silent;

static void look_up(const char *host, const char *port, struct addresses *found)
{
    char text[16];
    (void)host;
    (void)port;
    while (atomic_load(&silent)) {
        (void)poll(NULL, 0, 1);
    }
    (void)snprintf(text, sizeof(text), "%d", atomic_load(&named_port));
    cr_assert(resolver_is_address("127.0.0.1", text, found));
}

static void begin_name(int64_t deadline_ms)
{
    fake_open(&fake);
    atomic_store(&named_port, fake.port);
    names = resolver_create(look_up);
    begin_at(&(struct node_options){.host = "redis.example", .port = "1", .resolver = names}, false,
             deadline_ms);
}

static void end_name(void)
{
    end();
    resolver_destroy(names);
}

static void greet(struct fake *f)
{
    fake_accept(f);
    fake_expect(f, "PING\r\n");
    fake_say(f, "+PONG\r\n");
}

Test(control, first_lookup_of_a_name_is_part_of_the_attempt)
{
    atomic_store(&silent, true);
    begin_name(5000);
    live_run_for(100);
    cr_assert_eq(downs, 0);
    atomic_store(&silent, false);
    greet(&fake);
    WAIT_FOR(ups == 1);
    cr_assert_eq(downs, 0);
    end_name();
}

Test(control, first_lookup_of_a_name_has_a_deadline)
{
    atomic_store(&silent, true);
    begin_name(100);
    WAIT_FOR(downs == 1);
    cr_assert_str_eq(why_down, "the host name is not resolved yet");
    atomic_store(&silent, false);
    greet(&fake);
    WAIT_FOR(ups == 1);
    end_name();
}

Test(control, may_be_destroyed_while_the_name_is_looked_up)
{
    atomic_store(&silent, true);
    begin_name(5000);
    live_run_for(30);
    control_destroy(control);
    control = NULL;
    live_run_for(30);
    atomic_store(&silent, false);
    end_name();
}

Test(control, name_is_looked_up_again_when_the_server_is_lost)
{
    struct fake other;
    begin_name(5000);
    greet(&fake);
    WAIT_FOR(ups == 1);
    fake_open(&other);
    atomic_store(&named_port, other.port);
    fake_close(&fake);
    fake.fd = fake.listener = -1;
    greet(&other);
    WAIT_FOR(ups == 2);
    fake_close(&other);
    end_name();
}
