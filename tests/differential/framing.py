# SPDX-License-Identifier: Apache-2.0
"""RESP2 and RESP3 on the wire: requests to bytes, bytes to frames, frames to trees.

A frame is the bytes of one complete reply or push, kept as they came: what is compared is bytes. Only
where a reply is compared by shape is it decoded.
"""

LINE_TYPES = b"+-:_#,("
BULK_TYPES = b"$=!"
PUSH = b">"[0]
ERROR_TYPES = b"-!"

#: Stands in a connection's list of frames where the other side closed it.
CLOSED = b"<closed>"


class FramingError(Exception):
    """The bytes are no RESP."""


def encode(args):
    """One request, as clients send it."""
    parts = [b"*%d\r\n" % len(args)]
    for arg in args:
        parts.append(b"$%d\r\n" % len(arg))
        parts.append(arg)
        parts.append(b"\r\n")
    return b"".join(parts)


class Framer:
    """Cuts a stream into frames. Resumes where it stopped, so a large reply costs one pass. A push within an
    array (Redis 7.0 sends what a transaction publishes to its own connection so) is none of its elements."""

    def __init__(self):
        self.buffer = bytearray()
        self.position = 0
        self.missing = 1  # elements until the frame is complete

    def feed(self, chunk):
        self.buffer += chunk

    def next_frame(self):
        """The next complete frame, or None."""
        while self.missing > 0:
            if not self._take_element():
                return None
        frame = bytes(self.buffer[:self.position])
        del self.buffer[:self.position]
        self.position = 0
        self.missing = 1
        return frame

    def is_midway(self):
        """Has part of a frame arrived?"""
        return len(self.buffer) > 0

    def _take_element(self):
        end = self.buffer.find(b"\r\n", self.position)
        if end < 0:
            return False
        kind = self.buffer[self.position]
        if kind in LINE_TYPES:
            self.position = end + 2
            self.missing -= 1
            return True
        try:
            count = int(self.buffer[self.position + 1:end])
        except ValueError:
            raise FramingError("length %r" % bytes(self.buffer[self.position:end][:80])) from None
        if kind in BULK_TYPES:
            after = end + 2 if count < 0 else end + 2 + count + 2
            if len(self.buffer) < after:
                return False
            if count >= 0 and self.buffer[after - 2:after] != b"\r\n":
                raise FramingError("a bulk of %d bytes is not followed by CRLF" % count)
            self.position = after
            self.missing -= 1
            return True
        stands_before = kind == b"|"[0] or (kind == PUSH and self.position > 0)
        inner = {b"*"[0]: 1, b"~"[0]: 1, PUSH: 1, b"%"[0]: 2, b"|"[0]: 2}.get(kind)
        if inner is None:
            raise FramingError("type %r" % bytes(self.buffer[self.position:end][:80]))
        self.position = end + 2
        self.missing += max(count, 0) * inner
        if not stands_before:  # an attribute stands before the reply and does not replace it
            self.missing -= 1
        return True


def decode(frame):
    """A frame as (type, value); the value of an aggregate is a list of such pairs, of a map the flat
    list of keys and values."""
    tree, end = _decode_at(frame, 0)
    if end != len(frame):
        raise FramingError("%d bytes behind a frame" % (len(frame) - end))
    return tree


def _decode_at(frame, position):
    end = frame.index(b"\r\n", position)
    kind = frame[position:position + 1]
    head = frame[position + 1:end]
    position = end + 2
    if kind[0] in LINE_TYPES:
        return (kind, int(head) if kind == b":" else head), position
    count = int(head)
    if kind[0] in BULK_TYPES:
        if count < 0:
            return (b"_", None), position
        return (kind, frame[position:position + count]), position + count + 2
    if count < 0:
        return (b"_", None), position
    elements = []
    missing = count * 2 if kind in b"%|" else count
    while missing > 0:
        element, position = _decode_at(frame, position)
        elements.append(element)
        missing -= element[0] != b">"
    if kind == b"|":
        reply, position = _decode_at(frame, position)
        return (kind, elements + [reply]), position
    return (kind, elements), position


def elements_of(frame):
    """The frames of an array's elements, as bytes, and the pushes among them; None when it is no array."""
    if frame[:1] != b"*" or frame.startswith(b"*-1"):
        return None
    end = frame.index(b"\r\n")
    framer = Framer()
    framer.feed(frame[end + 2:])
    elements, pushes = [], []
    while len(elements) < int(frame[1:end]):
        element = framer.next_frame()
        (pushes if is_push(element) else elements).append(element)
    return elements, pushes


def is_push(frame):
    return frame[0] == PUSH


def is_error(frame):
    return frame[0] in ERROR_TYPES


def shortened(frame, limit=300):
    """For people: a frame's repr, its middle left out when it is long."""
    if len(frame) <= limit:
        return repr(frame)
    half = limit // 2
    return "%r ... %d bytes ... %r" % (frame[:half], len(frame) - 2 * half, frame[-half:])
