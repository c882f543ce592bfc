/* SPDX-License-Identifier: Apache-2.0
 *
 * client.h: a Redis client on a plain socket, for servers and proxy alike. Everything that is sent
 * is chosen by the test, byte by byte if need be, and every reply is checked for being RESP.
 *
 * Commands are written as one line: words separated by blanks, 'single quotes' around a word that
 * holds blanks or is empty, "double quotes" for one with \r \n \" \\ or \xHH in it. They are sent
 * as arrays of bulk strings. Replies are compared as reply_show writes them; an expectation that
 * ends in "..." only needs to match up to there.
 *
 * A client is used by one thread. Functions marked (main thread) fail the test themselves and may
 * not be called on others.
 */
#pragma once

#include "reply.h"

#include <stdint.h>
#include <sys/types.h>

#define FORMAT(fmt, args) __attribute__((format(printf, fmt, args)))

/* How long a reply may take unless a client says otherwise. */
#define CLIENT_TIMEOUT_MS 30000

struct client;

/* Connects to a port of the loopback address; fails the test if nobody listens (main thread).
 * Closed by the test's cleanup at the latest. */
struct client *client_connect(int port);
/* The same, speaking version 2 or 3 of the protocol. */
struct client *client_connect_as(int port, int version);
/* The same, but NULL if the connection is refused; any thread. */
struct client *client_try(int port);
/* The same to a Unix socket. */
struct client *client_try_unix(const char *path);
void client_close(struct client *c);
/* Closes with a reset instead of a FIN. */
void client_reset(struct client *c);
/* Nothing more will be sent; replies can still be read. */
void client_shutdown(struct client *c);
void client_set_timeout(struct client *c, int64_t ms);
/* Keeps the kernel from taking more than about n bytes of replies that nobody reads. Before use. */
struct client *client_connect_small(int port, int receive_buffer);
int client_fd(const struct client *c);

/* ---- Sending; false if the peer closed or did not take it in time --------------------------- */

bool client_send(struct client *c, const void *bytes, size_t n);
bool client_send_text(struct client *c, const char *bytes);
/* As many bytes as the peer takes within `ms`. */
size_t client_send_some(struct client *c, const void *bytes, size_t n, int64_t ms);
/* A command given as a line, as an array, and one whose last argument is n bytes. */
bool client_command(struct client *c, const char *fmt, ...) FORMAT(2, 3);
bool client_command_big(struct client *c, const char *line, const void *last, size_t n);
/* A line as the bytes of a command; owned by the caller. */
char *command_bytes(const char *line, size_t *n);

/* `times` times the same command, as one block of bytes; freed by the test's cleanup. */
char *command_repeated(const char *line, size_t times, size_t *size);
/* Commands, up to a NULL, as one piece of bytes, so that they are read at once. */
bool client_send_lines(struct client *c, const char *const *lines);

/* ---- Receiving ------------------------------------------------------------------------------ */

/* The next reply. Valid until the next call that reads from this client, like those below. */
const struct reply *client_reply(struct client *c);
/* The next reply, as text. */
const char *client_read(struct client *c);
/* The bytes of the reply that was read last. */
const char *client_raw(const struct client *c, size_t *n);
/* Reads bytes until the peer closes, n are there, or the time-out; how many came. */
size_t client_read_bytes(struct client *c, char *buf, size_t n);
/* Reads until what came ends with `marker`, the peer closes, or the time-out; the bytes and their
 * number. Valid until the next call that reads. */
const char *client_read_until(struct client *c, const char *marker, size_t *n);
/* Has the peer closed, or sent something? Waits for it at most `ms`. */
bool client_readable(struct client *c, int64_t ms);
/* Reads and drops everything until the peer closes. False: it did not in time. */
bool client_drain_to_end(struct client *c);

/* ---- Asking --------------------------------------------------------------------------------- */

/* Sends a command and returns the text of its reply. */
const char *ask(struct client *c, const char *fmt, ...) FORMAT(2, 3);

/* The port behind "-MOVED SLOT HOST:PORT" or "-ASK SLOT HOST:PORT", and which of the two; 0: neither. */
int client_redirected(const struct reply *reply, bool *asks);

/* Does `got` match an expectation? */
bool matches(const char *got, const char *want);

/* Sends a command and fails the test unless the reply matches (main thread). */
#define expect(c, want, ...) expect_at(__FILE__, __LINE__, c, want, __VA_ARGS__)
void expect_at(const char *file, int line, struct client *c, const char *want, const char *fmt, ...)
    FORMAT(5, 6);

/* Fails the test unless the next reply matches (main thread). */
#define expect_next(c, want) expect_next_at(__FILE__, __LINE__, c, want)
void expect_next_at(const char *file, int line, struct client *c, const char *want);

/* Repeats a command until the reply matches; fails the test after `ms` (main thread). */
#define await_reply(c, want, ms, ...) await_reply_at(__FILE__, __LINE__, c, want, ms, __VA_ARGS__)
void await_reply_at(const char *file, int line, struct client *c, const char *want, int64_t ms,
                    const char *fmt, ...) FORMAT(6, 7);

/* SETs the key to `size` bytes of 'v' (main thread). */
void store_value(struct client *c, const char *key, size_t size);
