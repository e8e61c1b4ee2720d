"""The things and colours of mini-sdxl's pictures: each thing is a few outlines in a unit box.

A thing is a list of layers (role, outlines); "main" takes the asked colour, "dark" a darker one, a
triple is a fixed colour. y points down. `silhouette` is what the judge compares pictures with.
"""

import functools
import math

import numpy as np
from PIL import Image, ImageDraw

OVERSAMPLING = 2

COLOURS = {
    "red": (218, 41, 46),
    "green": (38, 150, 62),
    "blue": (38, 82, 214),
    "yellow": (248, 212, 44),
    "orange": (243, 132, 26),
    "purple": (128, 54, 178),
    "white": (247, 247, 247),
    "black": (34, 34, 38),
    "pink": (247, 146, 190),
    "cyan": (52, 206, 220),
    "brown": (122, 76, 42),
    "gray": (140, 142, 148),
}


def corners(count, radius=1.0, inner=None, y=0.0):
    """The corners of a regular polygon, or of a star where `inner` is the inner radius."""
    total = count if inner is None else 2 * count
    radii = [radius if inner is None or i % 2 == 0 else inner for i in range(total)]
    turns = [-math.pi / 2 + 2 * math.pi * i / total for i in range(total)]
    return [(r * math.cos(a), y + r * math.sin(a)) for r, a in zip(radii, turns)]


def polygon(*points):
    return ("polygon", [tuple(p) for p in points])


def ellipse(x, y, rx, ry=None):
    return ("ellipse", (x - rx, y - (ry or rx), x + rx, y + (ry or rx)))


def hole(x, y, rx):
    return ("hole", (x - rx, y - rx, x + rx, y + rx))


def box(x0, y0, x1, y1):
    return polygon((x0, y0), (x1, y0), (x1, y1), (x0, y1))


def arc(x, y, radius, start, end, count=28):
    turns = [start + (end - start) * i / (count - 1) for i in range(count)]
    return [(x + radius * math.cos(a), y + radius * math.sin(a)) for a in turns]


def heart():
    # The two lobes meet on the axis: 0.395 rad is where their circles cross it.
    left = arc(-0.48, -0.38, 0.52, 0.80 * math.pi, 2 * math.pi - 0.395)
    right = arc(0.48, -0.38, 0.52, math.pi + 0.395, 2.20 * math.pi)
    return polygon(*left, *right, (0, 0.98))


def moon():
    # From one crossing of the two circles to the other, and back along the inner one.
    outer = arc(-0.1, 0, 0.98, 0.26 * math.pi, 1.74 * math.pi)
    inner = arc(0.38, 0, 0.74, 1.583 * math.pi, 0.417 * math.pi)
    return polygon(*outer, *inner)


CREAM, TRUNK, STEM, SUNNY = (243, 229, 203), (112, 74, 44), (52, 138, 66), (250, 214, 84)
PETALS = [(0.46 * math.cos(a * math.pi / 3), -0.36 + 0.46 * math.sin(a * math.pi / 3))
          for a in range(6)]

THINGS = {
    "circle": [("main", [ellipse(0, 0, 0.95)])],
    "square": [("main", [box(-0.86, -0.86, 0.86, 0.86)])],
    "triangle": [("main", [polygon((0, -0.95), (1.02, 0.82), (-1.02, 0.82))])],
    "star": [("main", [polygon(*corners(5, 1.1, 0.46, 0.08))])],
    "ring": [("main", [ellipse(0, 0, 0.98), hole(0, 0, 0.5)])],
    "cross": [("main", [box(-0.34, -0.98, 0.34, 0.98), box(-0.98, -0.34, 0.98, 0.34)])],
    "heart": [("main", [heart()])],
    "diamond": [("main", [polygon((0, -1.05), (0.74, 0), (0, 1.05), (-0.74, 0))])],
    "house": [
        ("main", [box(-0.78, -0.14, 0.78, 0.95)]),
        ("dark", [polygon((-1.0, -0.14), (0, -1.0), (1.0, -0.14))]),
        ("dark", [box(-0.46, 0.34, -0.06, 0.95)]),
        (SUNNY, [box(0.2, 0.16, 0.56, 0.5)]),
    ],
    "tree": [
        (TRUNK, [box(-0.15, 0.3, 0.15, 1.0)]),
        ("main", [ellipse(-0.36, 0.02, 0.46), ellipse(0.36, 0.02, 0.46),
                  ellipse(0, -0.48, 0.52)]),
    ],
    "moon": [("main", [moon()])],
    "flower": [
        (STEM, [box(-0.07, 0, 0.07, 1.05), ellipse(0.26, 0.68, 0.24, 0.12)]),
        ("main", [ellipse(x, y, 0.31) for x, y in PETALS]),
        (SUNNY, [ellipse(0, -0.36, 0.25)]),
    ],
    "boat": [
        (TRUNK, [box(-0.12, -0.95, 0.0, 0.5)]),
        ("main", [polygon((0.04, -0.92), (0.04, 0.24), (0.82, 0.24))]),
        ("dark", [polygon((-1.0, 0.4), (1.0, 0.4), (0.64, 0.92), (-0.64, 0.92))]),
    ],
    "fish": [
        ("dark", [polygon((0.38, 0), (1.02, -0.56), (1.02, 0.56))]),
        ("main", [ellipse(-0.2, 0, 0.8, 0.54)]),
        ((250, 250, 250), [ellipse(-0.56, -0.12, 0.15)]),
        ((20, 20, 24), [ellipse(-0.58, -0.12, 0.07)]),
    ],
    "mushroom": [
        (CREAM, [box(-0.3, 0, 0.3, 0.92)]),
        ("main", [polygon(*arc(0, 0.12, 1.0, math.pi, 2 * math.pi))]),
        ((252, 252, 252), [ellipse(-0.46, -0.22, 0.15), ellipse(0.06, -0.5, 0.15),
                           ellipse(0.5, -0.16, 0.15)]),
    ],
    "cat": [
        ("main", [polygon((-0.86, -0.05), (-0.8, -1.0), (-0.14, -0.56)),
                  polygon((0.86, -0.05), (0.8, -1.0), (0.14, -0.56)),
                  ellipse(0, 0.12, 0.9, 0.8)]),
        ((236, 246, 150), [ellipse(-0.36, 0.02, 0.17), ellipse(0.36, 0.02, 0.17)]),
        ((20, 20, 24), [ellipse(-0.36, 0.02, 0.08), ellipse(0.36, 0.02, 0.08)]),
        ((238, 130, 140), [polygon((-0.13, 0.34), (0.13, 0.34), (0, 0.5))]),
    ],
}


def darker(colour, by=0.55):
    return tuple(int(c * by) for c in colour)


def fill(draw, outline, centre, radius, grow):
    """Fills one outline in a mask: moved to `centre`, `radius` pixels a unit, `grow` wider."""
    kind, points = outline
    x, y = centre
    if kind == "polygon":
        moved = [(x + radius * px, y + radius * py) for px, py in points]
        draw.polygon(moved, fill=255)
        if grow:
            draw.line([*moved, *moved[:2]], fill=255, width=round(2 * grow), joint="curve")
        return
    x0, y0, x1, y1 = points
    wider = -grow if kind == "hole" else grow
    edges = [x + radius * x0 - wider, y + radius * y0 - wider,
             x + radius * x1 + wider, y + radius * y1 + wider]
    draw.ellipse(edges, fill=0 if kind == "hole" else 255)


def mask(outlines, centre, radius, grow):
    """An L image, 255 inside, and its corner: antialiased, around `centre`, all in pixels."""
    half = math.ceil(1.15 * radius + grow + 1)
    corner = (math.floor(centre[0]) - half, math.floor(centre[1]) - half)
    middle = [(c - o) * OVERSAMPLING for c, o in zip(centre, corner)]
    large = Image.new("L", (2 * half * OVERSAMPLING, 2 * half * OVERSAMPLING))
    draw = ImageDraw.Draw(large)
    for outline in outlines:
        fill(draw, outline, middle, radius * OVERSAMPLING, grow * OVERSAMPLING)
    return large.resize((2 * half, 2 * half), Image.BOX), corner


@functools.cache
def shading(colour):
    """A column of colours, lit from above."""
    light = np.linspace(0.16, 0.0, 32)[:, None]
    dark = np.linspace(1.0, 0.84, 32)[:, None]
    column = np.asarray(colour) * dark * (1 - light) + 255 * light
    return Image.fromarray(column.astype(np.uint8)[:, None, :])


def stroke_of(radius):
    return max(1.0, 0.045 * radius)


def draw_thing(image, what, colour, centre, radius):
    """Draws a thing into an RGB image; `centre` and `radius` in pixels."""
    ink = darker(COLOURS[colour], 0.45) if colour != "black" else (120, 120, 126)
    layers = THINGS[what]
    outlines = [outline for _, some in layers for outline in some]
    shape, corner = mask(outlines, centre, radius, stroke_of(radius))
    image.paste(ink, (*corner, corner[0] + shape.width, corner[1] + shape.height), shape)
    for role, some in layers:
        paint = COLOURS[colour] if role == "main" else role
        if role == "dark":
            paint = darker(COLOURS[colour], 0.68) if colour != "black" else (78, 78, 84)
        shape, corner = mask(some, centre, radius, 0)
        image.paste(shading(paint).resize(shape.size, Image.BILINEAR), corner, shape)


def silhouette(what, radius):
    """A boolean mask of all that is drawn of a thing, line included."""
    outlines = [outline for _, some in THINGS[what] for outline in some]
    return np.asarray(mask(outlines, (0.0, 0.0), radius, stroke_of(radius))[0]) >= 128
