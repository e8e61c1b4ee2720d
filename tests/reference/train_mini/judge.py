"""Judges pictures by their pixels: which things, of which colours, how many, and where.

What differs from the asked place's own shades is cut into connected parts; each part is compared
with every thing's outline as the renderer draws it, and its colour with the twelve. Nothing learnt.
"""

import dataclasses
import functools
import itertools

import numpy as np

import places
from scenes import RELATIONS
from things import COLOURS, THINGS, mask, silhouette

BACKGROUND_DISTANCE = 42  # in levels of 255, Euclidean: farther than this is a thing
SMALLEST_PART = 0.004  # of the picture's area: stars, snow and rain are smaller
LARGEST_HOLE = 0.1  # of a part's box: an eye is smaller, the hole of a ring is larger
GRID = 48  # outlines are compared on a grid of so many cells
LEAST_OVERLAP = 0.5  # a part that is like no thing is none


@dataclasses.dataclass(frozen=True)
class Part:
    thing: str
    colour: str
    overlap: float
    x: float
    y: float
    area: int


def shades_of(place):
    """The colours (n, 3) that a place is drawn in."""
    steps = np.linspace(0, 1, 9)[:, None]

    def between(first, last):
        return np.asarray(first) * (1 - steps) + np.asarray(last) * steps

    if isinstance(place, str):
        base = np.asarray(COLOURS[place])
        return between(base * 0.96 + 255 * 0.04, base * 0.92)
    where, hour, weather = place
    shades = [between(*(places.RAINY if weather == "rain" else places.SKIES)[hour])]
    if places.GROUNDS[where] is not None:
        dim = np.asarray(places.DIMMED[hour]) * (0.86 if weather == "rain" else 1.0)
        shades.append(between(*(np.asarray(c) * dim for c in places.GROUNDS[where])))
    if hour == "day" and weather == "clear":
        shades.append(np.asarray([[229, 240, 251]]))
    return np.concatenate(shades)


def label(cells):
    """Connected parts (4 neighbours) of a boolean grid: numbers from 1, and how many there are."""
    labels = np.zeros(cells.shape, np.int32)
    count = 0
    rows, columns = cells.shape
    for start in zip(*np.nonzero(cells)):
        if labels[start]:
            continue
        count += 1
        labels[start] = count
        waiting = [start]
        while waiting:
            y, x = waiting.pop()
            for b, a in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
                if 0 <= b < rows and 0 <= a < columns and cells[b, a] and not labels[b, a]:
                    labels[b, a] = count
                    waiting.append((b, a))
    return labels, count


def without_small_holes(part):
    """A cut-out part, with what it encloses filled where that is small."""
    framed = np.pad(~part, 1, constant_values=True)
    labels, count = label(framed)
    filled = part.copy()
    for number in range(1, count + 1):
        hole = (labels == number)[1:-1, 1:-1]
        if labels[0, 0] != number and hole.sum() < LARGEST_HOLE * part.size:
            filled |= hole
    return filled


def on_grid(shape):
    """Any cut-out mask, centred and scaled by its area onto the grid: place and size are gone."""
    ys, xs = np.nonzero(shape)
    scale = np.sqrt(len(ys)) / (GRID * 0.42)
    steps = (np.arange(GRID) - (GRID - 1) / 2) * scale
    rows = np.round(ys.mean() + steps).astype(int)
    columns = np.round(xs.mean() + steps).astype(int)
    inside = np.outer((rows >= 0) & (rows < shape.shape[0]),
                      (columns >= 0) & (columns < shape.shape[1]))
    return inside & shape[np.ix_(rows.clip(0, shape.shape[0] - 1),
                                 columns.clip(0, shape.shape[1] - 1))]


@functools.cache
def known_outlines():
    return {thing: on_grid(silhouette(thing, 60.0)) for thing in THINGS}


def likeness(first, second):
    return (first & second).sum() / (first | second).sum()


def thing_of(shape):
    """(thing, overlap): the likest outline; a part may be cut a cell off centre."""
    cells = on_grid(shape)
    moves = list(itertools.product((-1, 0, 1), repeat=2))
    scores = {thing: max(likeness(np.roll(cells, move, (0, 1)), outline) for move in moves)
              for thing, outline in known_outlines().items()}
    best = max(scores, key=scores.get)
    return best, scores[best]


def colour_of(picture, shape, thing):
    """The nearest of the twelve to what is seen where the thing takes the asked colour."""
    ys, xs = np.nonzero(shape)
    main = [outline for role, some in THINGS[thing] if role == "main" for outline in some]
    radius = np.sqrt(shape.sum() / silhouette(thing, 60.0).sum()) * 60.0
    outline = silhouette(thing, radius)
    oy, ox = (axis.mean() - outline.shape[0] / 2 for axis in np.nonzero(outline))
    drawn, corner = mask(main, (xs.mean() - ox, ys.mean() - oy), radius, -0.0)
    inside = np.zeros(shape.shape, bool)
    drawn = np.asarray(drawn) > 250
    for y, x in zip(*np.nonzero(drawn)):
        row, column = y + corner[1], x + corner[0]
        if 0 <= row < shape.shape[0] and 0 <= column < shape.shape[1]:
            inside[row, column] = shape[row, column]
    seen = picture[inside if inside.any() else shape].astype(float)
    return max(COLOURS, key=lambda name: votes(seen)[name])


def votes(seen):
    """How many pixels are nearest to each colour, in any of its lights."""
    names = list(COLOURS)
    shades = np.asarray([[np.asarray(COLOURS[name]) * dark * (1 - light) + 255 * light
                          for dark, light in ((1, 0.16), (0.92, 0.08), (0.84, 0))]
                         for name in names])
    distances = np.linalg.norm(seen[:, None, None] - shades[None], axis=-1).min(-1)
    return dict(zip(names, np.bincount(distances.argmin(1), minlength=len(names))))


def parts_of(picture, place):
    """The things seen in a picture (height, width, 3) of bytes, largest first."""
    shades = shades_of(place)
    distances = np.linalg.norm(picture[:, :, None].astype(np.float32) - shades, axis=-1).min(-1)
    labels, count = label(distances > BACKGROUND_DISTANCE)
    found = []
    for number in range(1, count + 1):
        whole = labels == number
        if whole.sum() < SMALLEST_PART * whole.size:
            continue
        ys, xs = np.nonzero(whole)
        box = np.s_[ys.min():ys.max() + 1, xs.min():xs.max() + 1]
        shape = without_small_holes(whole[box])
        thing, overlap = thing_of(shape)
        colour = colour_of(picture[box], shape, thing)
        found.append(Part(thing if overlap >= LEAST_OVERLAP else "", colour, overlap,
                          xs.mean(), ys.mean(), len(ys)))
    return sorted(found, key=lambda part: -part.area)


def matched(items, parts):
    """One part (or None) for each asked item: the dealing that agrees most."""
    padded = [*parts[:5], *[None] * len(items)]

    def agreement(dealt):
        return sum((part.thing == item.thing) + (part.colour == item.colour)
                   for item, part in zip(items, dealt) if part)

    return max(itertools.permutations(padded, len(items)), key=agreement)


def judge(picture, scene):
    """What is right: lists of booleans "object" and "colour", and "relation", "count" if asked."""
    parts = parts_of(picture, scene.place)
    items = scene.items * scene.count if scene.kind == "count" else scene.items
    dealt = matched(items, parts)
    verdict = {
        "object": [bool(p) and p.thing == i.thing for i, p in zip(items, dealt)],
        "colour": [bool(p) and p.colour == i.colour for i, p in zip(items, dealt)],
        "count": [len(parts) == len(items)],
    }
    if scene.kind == "pair":
        verdict["relation"] = [is_related(scene, dealt)]
    return verdict


def is_related(scene, dealt):
    """Whether two parts, each right in thing or colour, lie as asked, more than otherwise."""
    for item, part in zip(scene.items, dealt):
        if part is None or (part.thing != item.thing and part.colour != item.colour):
            return False
    dx, dy = RELATIONS[scene.relation]
    across, down = dealt[0].x - dealt[1].x, dealt[0].y - dealt[1].y
    along, aside = (across * dx, down) if dx else (down * dy, across)
    return bool(along > abs(aside))
