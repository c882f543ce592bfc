# SPDX-License-Identifier: Apache-2.0
"""The comparison as a picture (SVG): CPU per request against Redis direct, over the number of requests
in flight. One panel for each transport and size; a mark is the median, its whisker the spread."""

import math
import statistics

from compare import PIPELINES, SIZES, TRANSPORTS
from report import METRICS, size_name

LINES = {  # member: group, colour (distinct also for the colour-blind)
    "hit": ("GET", "#0072b2"), "fill": ("GET", "#009e73"), "forwarded GET": ("GET", "#e69f00"),
    "forwarded SET": ("SET", "#d55e00"), "twemproxy GET": ("GET", "#8a8a8a"),
    "twemproxy SET": ("SET", "#bdbdbd"),
}
WIDTH, HEIGHT = 420, 300
LEFT, RIGHT, TOP, BOTTOM = 48, 16, 40, 40
LOWEST, HIGHEST = 0.125, 16.0


def at_x(index):
    return LEFT + 18 + index * (WIDTH - LEFT - RIGHT - 36) / (len(PIPELINES) - 1)


def at_y(ratio):
    ratio = min(max(ratio, LOWEST), HIGHEST)
    part = math.log(ratio / LOWEST) / math.log(HIGHEST / LOWEST)
    return HEIGHT - BOTTOM - part * (HEIGHT - TOP - BOTTOM)


def text(x, y, words, anchor="middle", size=11, fill="#333"):
    return ('<text x="%.1f" y="%.1f" text-anchor="%s" font-size="%d" fill="%s">%s</text>'
            % (x, y, anchor, size, fill, words))


def line(x1, y1, x2, y2, colour, width=1.0):
    return ('<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" stroke="%s" stroke-width="%s"/>'
            % (x1, y1, x2, y2, colour, width))


def axes(title):
    parts = [text(WIDTH / 2, 22, title, size=13)]
    ratio = LOWEST
    while ratio <= HIGHEST:
        y = at_y(ratio)
        one = ratio == 1
        parts += [line(LEFT, y, WIDTH - RIGHT, y, "#555" if one else "#ddd", 1.5 if one else 1),
                  text(LEFT - 6, y + 4, "%g" % ratio, "end")]
        ratio *= 2
    parts += [text(at_x(i), HEIGHT - BOTTOM + 18, "P=%d" % p) for i, p in enumerate(PIPELINES)]
    return parts


def curve(samples, member, transport, size, shift):
    group, colour = LINES[member]
    points, parts = [], []
    for i, pipeline in enumerate(PIPELINES):
        values = samples.ratios((group, member, transport, size, pipeline), METRICS["cpu"])
        if values:
            x, y = at_x(i) + shift, at_y(statistics.median(values))
            points.append("%.1f,%.1f" % (x, y))
            parts += [line(x, at_y(min(values)), x, at_y(max(values)), colour, 1.5),
                      '<circle cx="%.1f" cy="%.1f" r="3.5" fill="%s"/>' % (x, y, colour)]
    return ['<polyline points="%s" fill="none" stroke="%s" stroke-width="2"/>'
            % (" ".join(points), colour)] + parts


def legend(y):
    parts = []
    for i, (member, (_, colour)) in enumerate(LINES.items()):
        x = LEFT - 10 + i * 132
        parts += [line(x, y - 4, x + 22, y - 4, colour, 3), text(x + 28, y, member, "start")]
    return parts


def write(samples):
    width, height = 2 * WIDTH, 2 * HEIGHT + 60
    parts = ['<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" '
             'font-family="sans-serif">' % (width, height, width, height),
             '<rect width="100%" height="100%" fill="white"/>',
             text(width / 2, 22, "Server CPU per request: Redis / it. Above 1: cheaper than Redis.",
                  size=15)]
    for row, size in enumerate(SIZES):
        for column, transport in enumerate(TRANSPORTS):
            parts.append('<g transform="translate(%d %d)">' % (column * WIDTH, 28 + row * HEIGHT))
            parts += axes("%s, values of %s" % ("TCP" if transport == "tcp" else "Unix sockets",
                                                size_name(size)))
            for i, member in enumerate(LINES):
                parts += curve(samples, member, transport, size, 3 * (i - 2.5))
            parts.append("</g>")
    parts += legend(height - 14)
    return "\n".join(parts + ["</svg>"]) + "\n"
