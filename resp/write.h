/* SPDX-License-Identifier: Apache-2.0
 *
 * write.h: replies and commands as bytes. Everything appends to a chain and returns false only when
 * memory is out; the chain then holds the bytes it held before. `resp3` chooses the encoding where RESP2 and RESP3 differ.
 */
#pragma once

#include "chain.h"

#include <stdarg.h>

/* Longest "$<n>\r\n" or similar header. */
#define RESP_HEADER_MAX 24

/* Writes type, n in decimal and CRLF to dst (RESP_HEADER_MAX bytes); returns the length. */
size_t resp_header(char *dst, char type, int64_t n);

/* +text; CR and LF in it become blanks. */
MUST_CHECK bool resp_status(struct chain *c, const char *text);
/* -text; CR and LF in it become blanks. The text includes the code ("ERR ..."). */
MUST_CHECK bool resp_error(struct chain *c, const char *text);
MUST_CHECK bool resp_errorf(struct chain *c, const char *fmt, ...) PRINTF_LIKE(2, 3);
MUST_CHECK bool resp_verrorf(struct chain *c, const char *fmt, va_list args) PRINTF_LIKE(2, 0);
MUST_CHECK bool resp_integer(struct chain *c, int64_t n);   /* :n */
MUST_CHECK bool resp_bulk(struct chain *c, struct slice s); /* $n */
/* A text for people: "=" with "txt:" in RESP3, a bulk string in RESP2. */
MUST_CHECK bool resp_verbatim(struct chain *c, struct slice s, bool resp3);
/* Its beginning alone; n bytes of text and CRLF are to follow. */
MUST_CHECK bool resp_verbatim_begin(struct chain *c, size_t n, bool resp3);
MUST_CHECK bool resp_null(struct chain *c, bool resp3); /* $-1 or _, as */
static inline struct slice resp_null_text(bool resp3)
{
    return resp3 ? SLICE("_\r\n") : SLICE("$-1\r\n");
}
MUST_CHECK bool resp_array(struct chain *c, int64_t n);               /* *n */
MUST_CHECK bool resp_map(struct chain *c, int64_t pairs, bool resp3); /* *2n or %n */
MUST_CHECK bool resp_set(struct chain *c, int64_t n, bool resp3);     /* *n or ~n */

/* A command of argc arguments as an array of bulk strings. */
MUST_CHECK bool resp_command(struct chain *c, size_t argc, const struct slice *argv);
