# SPDX-License-Identifier: Apache-2.0
"""What the programs in Python share: how they are called and how they check (see run)."""
import sys
import time

ANSWERS = {'stop': 'stopped', 'start': 'started', 'fail': 'failed'}


def expect(got, wanted):
    if got != wanted or isinstance(got, bool) != isinstance(wanted, bool):
        raise AssertionError(f'got {got!r}, wanted {wanted!r}')


def expect_error(text, kind, call):
    """call() raises kind, and its message contains text."""
    try:
        result = call()
    except kind as error:
        if text not in str(error):
            raise AssertionError(f'got the error {str(error)!r}, wanted {text!r}') from error
        return
    raise AssertionError(f'got {result!r}, wanted the error {text!r}')


def until(what, condition, seconds=20):
    """The first true value of condition()."""
    end = time.monotonic() + seconds
    while True:
        result = condition()
        if result:
            return result
        if time.monotonic() > end:
            raise AssertionError(f'not within {seconds} s: {what}')
        time.sleep(0.01)


def server(word):
    """Has the server stopped or started, or a node of the cluster fail."""
    print(word, flush=True)
    expect(sys.stdin.readline().strip(), ANSWERS[word])


def main(features):
    """features: functions of (host, port), by name."""
    host, port, name = sys.argv[1:]
    try:
        features[name](host, int(port))
    except Exception as error:
        print(f'not ok {name}: {type(error).__name__}: {error}')
        raise
    print(f'ok {name}')
