"""Scenes of mini-sdxl's language: drawn by chance from a seed, told as captions, put on paper.

Some combinations are held back: `is_held_back` names them by a hash, training never sees them, and
the judge asks for nothing else.
"""

import dataclasses
import hashlib

import numpy as np
from PIL import Image, ImageFilter

import places
from things import COLOURS, THINGS, draw_thing

RELATIONS = {"above": (0, -1), "below": (0, 1), "left of": (-1, 0), "right of": (1, 0)}
RELATION_WORDS = {
    "above": ["above", "over"], "below": ["below", "under"],
    "left of": ["left of", "to the left of"], "right of": ["right of", "to the right of"],
}
COUNT_WORDS = {2: "two", 3: "three", 4: "four"}
PLURALS = {"cross": "crosses", "fish": "fish"}
RADII = {"small": (0.13, 0.15), "": (0.22, 0.25), "large": (0.32, 0.35)}
PAIR_RADII = {"small": (0.11, 0.12), "": (0.16, 0.18), "large": (0.19, 0.21)}
LEADS = ["", "", "", "a drawing of ", "a picture of ", "a painting of "]
HELD_BACK_ONE_IN = 12


@dataclasses.dataclass(frozen=True)
class Item:
    thing: str
    colour: str
    size: str = ""


@dataclasses.dataclass(frozen=True)
class Scene:
    """`kind`: one, pair, count, row, empty. `relation` is a pair's, `count` a count's."""

    kind: str
    items: tuple
    place: object
    relation: str = ""
    count: int = 1


@dataclasses.dataclass(frozen=True)
class Placed:
    """A thing on the paper: centre and radius in pixels of the picture."""

    thing: str
    colour: str
    x: float
    y: float
    radius: float


def is_held_back(scene):
    words = [scene.kind, scene.relation, str(scene.count)]
    words += [word for item in scene.items for word in (item.size, item.colour, item.thing)]
    if scene.kind in ("one", "count"):
        words.append(str(scene.place))
    digest = hashlib.blake2b("|".join(words).encode(), digest_size=4).digest()
    return scene.kind != "empty" and int.from_bytes(digest, "little") % HELD_BACK_ONE_IN == 0


def random_place(rng):
    if rng.random() < 0.3:
        return rng.choice(list(COLOURS))
    where = rng.choice(list(places.GROUNDS))
    hour = rng.choices(["day", "night", "sunset"], [6, 2, 2])[0]
    weather = rng.choices(["clear", "rain", "snowfall"], [8, 1, 1])[0]
    if weather == "rain" and where in ("desert", "snow"):
        weather = "clear"
    return (where, hour, weather)


def random_scene(rng, kind=None):
    """Any scene, held back or not."""
    kind = kind or rng.choices(["one", "pair", "count", "row", "empty"], [34, 44, 9, 10, 3])[0]
    place = random_place(rng)
    seen = sorted(set(COLOURS) - places.lost_colours(place))

    def item(sizes):
        return Item(rng.choice(list(THINGS)), rng.choice(seen), rng.choices(["", "small", "large"],
                                                                            sizes)[0])

    if kind == "empty":
        return Scene(kind, (), place)
    if kind == "one":
        return Scene(kind, (item([4, 2, 3]),), place)
    if kind == "count":
        return Scene(kind, (item([1, 0, 0]),), place, count=rng.choice([2, 3, 4]))
    if kind == "row":
        return Scene(kind, tuple(item([1, 0, 0]) for _ in range(3)), place)
    sizes = [1, 0, 0] if rng.random() < 0.75 else [2, 3, 3]
    return Scene(kind, (item(sizes), item(sizes)), place, rng.choice(list(RELATIONS)))


def training_scene(rng):
    while True:
        scene = random_scene(rng)
        if not is_held_back(scene):
            return scene


def held_back_scene(rng, kind):
    while True:
        scene = random_scene(rng, kind)
        if is_held_back(scene):
            return scene


def noun(item, article="a"):
    words = [w for w in (item.size, item.colour, item.thing) if w]
    if article == "a" and words[0][0] in "aeiou":
        article = "an"
    return " ".join(filter(None, [article, *words]))


def caption(scene, rng):
    """One of the ways to say it."""
    where = places.phrase(rng, scene.place)
    lead = rng.choice(LEADS)
    if scene.kind == "empty":
        return f"{lead}nothing {where}"
    article = rng.choice(["a", "a", "a", ""]) if not lead else "a"
    if scene.kind == "one":
        return f"{lead}{noun(scene.items[0], article)} {where}"
    if scene.kind == "count":
        item = scene.items[0]
        plural = PLURALS.get(item.thing, f"{item.thing}s")
        return f"{lead}{COUNT_WORDS[scene.count]} {item.colour} {plural} {where}"
    nouns = [noun(item, article) for item in scene.items]
    if scene.kind == "row":
        return f"{lead}{nouns[0]}, {nouns[1]} and {nouns[2]} {where}"
    words = rng.choice(RELATION_WORDS[scene.relation])
    return f"{lead}{nouns[0]} {words} {nouns[1]} {where}"


def layout(scene, width, height, rng):
    """Where each thing lies: a list of Placed."""
    side = min(width, height)

    def place(item, x, y, radii):
        reach = 0.04 if scene.kind == "one" else 0.02
        jitter = [rng.uniform(-reach, reach) * side for _ in range(2)]
        x, y = x * width + jitter[0], y * height + jitter[1]
        return Placed(item.thing, item.colour, x, y, rng.uniform(*radii) * side)

    if scene.kind == "one":
        item = scene.items[0]
        return [place(item, 0.5, 0.5, RADII[item.size])]
    if scene.kind == "pair":
        dx, dy = RELATIONS[scene.relation]
        return [place(item, 0.5 + sign * 0.24 * dx, 0.5 + sign * 0.24 * dy, PAIR_RADII[item.size])
                for item, sign in zip(scene.items, (1, -1))]
    if scene.kind == "row":
        return [place(item, x, 0.5, (0.11, 0.12)) for item, x in
                zip(scene.items, (0.19, 0.5, 0.81))]
    spots = {2: [(0.28, 0.5), (0.72, 0.5)], 3: [(0.19, 0.5), (0.5, 0.5), (0.81, 0.5)],
             4: [(0.28, 0.28), (0.72, 0.28), (0.28, 0.72), (0.72, 0.72)]}
    radii = {2: (0.16, 0.18), 3: (0.11, 0.12), 4: (0.14, 0.16)}[scene.count] \
        if scene.kind == "count" else None
    return [] if radii is None else [place(scene.items[0], x, y, radii)
                                     for x, y in spots[scene.count]]


def draw(scene, width, height, rng):
    """An RGB image of the scene, and its layout."""
    placed = layout(scene, width, height, rng)
    image = places.draw_place(scene.place, width, height, rng)
    for one in placed:
        draw_thing(image, one.thing, one.colour, (one.x, one.y), one.radius)
    places.draw_weather(image, scene.place, rng)
    return image, placed


# What a negative prompt may name: a few training pictures are spoilt, and say so.
FLAWS = {
    "blurry": lambda image: image.filter(ImageFilter.GaussianBlur(image.width / 60)),
    "faded": lambda image: Image.blend(image, Image.new("RGB", image.size, (170, 170, 170)), 0.6),
}


def training_example(rng, width, height):
    """A picture (height, width, 3) of bytes, and its caption."""
    scene = training_scene(rng)
    image, _ = draw(scene, width, height, rng)
    words = caption(scene, rng)
    if rng.random() < 0.04:
        flaw = rng.choice(list(FLAWS))
        image = FLAWS[flaw](image)
        words = f"{words}, {flaw}" if rng.random() < 0.8 else flaw
    return np.asarray(image), words
