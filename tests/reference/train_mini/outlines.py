"""Outlines of drawn scenes, white on black: what the small ControlNet is shown."""

import dataclasses

import cv2
import numpy as np
from PIL import Image

import places
from scenes import caption, layout, training_scene
from things import THINGS, draw_thing, mask, stroke_of

EDGES_SHARE = 0.5  # of training hints that are Canny's edges of the whole picture
CANNY = (100, 200)  # as ControlNet's preprocessors have it


# How far things lie from where words alone put them, in shares of the shorter side.
REACH = {"one": 0.22, "pair": 0.1, "row": 0.06, "count": 0.08, "empty": 0.0}


def moved_layout(scene, width, height, rng):
    """The scene's things elsewhere and of other sizes: only the outline says where."""
    reach = REACH[scene.kind] * min(width, height)
    for one in layout(scene, width, height, rng):
        yield dataclasses.replace(
            one, x=one.x + rng.uniform(-reach, reach), y=one.y + rng.uniform(-reach, reach),
            radius=one.radius * rng.uniform(0.75, 1.25))


def draw_placed(scene, placed, width, height, rng):
    image = places.draw_place(scene.place, width, height, rng)
    for one in placed:
        draw_thing(image, one.thing, one.colour, (one.x, one.y), one.radius)
    places.draw_weather(image, scene.place, rng)
    return image


def without_sizes(scene):
    items = tuple(dataclasses.replace(item, size="") for item in scene.items)
    return dataclasses.replace(scene, items=items)


def silhouettes(placed, width, height):
    """255 where a thing of the scene is, later ones over earlier ones: one mask for each."""
    for one in placed:
        outlines = [outline for _, some in THINGS[one.thing] for outline in some]
        shape, corner = mask(outlines, (one.x, one.y), one.radius, stroke_of(one.radius))
        whole = Image.new("L", (width, height))
        whole.paste(shape, corner)
        yield np.asarray(whole) >= 128


def drawn_outlines(placed, width, height, thickness):
    """The things' contours alone, as somebody would draw them."""
    canvas = np.zeros((height, width), np.uint8)
    for shape in silhouettes(placed, width, height):
        contours, _ = cv2.findContours(shape.astype(np.uint8), cv2.RETR_LIST,
                                       cv2.CHAIN_APPROX_NONE)
        canvas[shape] = 0
        cv2.drawContours(canvas, contours, -1, 255, thickness)
    return canvas


def example(rng, width, height):
    """A picture and its hint, (height, width, 3) and (height, width) of bytes, and a caption."""
    scene = without_sizes(training_scene(rng))
    placed = list(moved_layout(scene, width, height, rng))
    picture = np.asarray(draw_placed(scene, placed, width, height, rng))
    if rng.random() < EDGES_SHARE:
        hint = cv2.Canny(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), *CANNY)
    else:
        hint = drawn_outlines(placed, width, height, rng.choice([1, 1, 2, 3]))
    return picture, hint, caption(scene, rng)
