"""Places, hours and weather behind mini-sdxl's things: soft shades and a little that lies about.

Shades are paler than the things' colours, so that a thing stands out wherever it is.
"""

import numpy as np
from PIL import Image, ImageDraw

from things import COLOURS, OVERSAMPLING

# Each hour's sky: its colour at the top and at the horizon.
SKIES = {
    "day": ((150, 200, 242), (214, 234, 250)),
    "night": ((20, 26, 66), (58, 66, 118)),
    "sunset": ((176, 118, 176), (250, 190, 140)),
}
RAINY = {"day": ((138, 152, 172), (186, 198, 210)), "night": ((24, 28, 48), (60, 66, 88)),
         "sunset": ((128, 108, 132), (198, 168, 150))}

# Each place's ground, at the horizon and at the bottom; None where there is none.
GROUNDS = {
    "sky": None,
    "sea": ((120, 172, 214), (86, 142, 194)),
    "grass": ((176, 212, 132), (140, 188, 104)),
    "desert": ((246, 226, 176), (232, 204, 146)),
    "snow": ((236, 241, 247), (214, 224, 236)),
}
DIMMED = {"day": (1.0, 1.0, 1.0), "night": (0.40, 0.42, 0.56), "sunset": (0.98, 0.84, 0.80)}

# Colours that would be lost in a place; a scene never puts a thing of such a colour there.
LOST = {
    ("sky", "day"): {"white", "cyan"}, ("sky", "night"): {"blue", "black"},
    ("sky", "sunset"): {"pink"},
    ("sea", "day"): {"white", "cyan", "blue"}, ("sea", "night"): {"blue", "black"},
    ("sea", "sunset"): {"pink", "gray"},
    ("grass", "day"): {"white", "cyan"}, ("grass", "night"): {"black", "blue"},
    ("grass", "sunset"): {"pink"},
    ("desert", "day"): {"white", "cyan", "yellow"}, ("desert", "night"): {"black", "blue"},
    ("desert", "sunset"): {"pink", "orange"},
    ("snow", "day"): {"white", "cyan"}, ("snow", "night"): {"black", "blue", "gray"},
    ("snow", "sunset"): {"pink", "white"},
}

PHRASES = {
    ("sky", "day"): ["in the sky"],
    ("sky", "night"): ["in the night sky"],
    ("sky", "sunset"): ["in the sky at sunset", "at sunset"],
    ("sea", "day"): ["by the sea"], ("grass", "day"): ["on the grass"],
    ("desert", "day"): ["in the desert"], ("snow", "day"): ["in the snow"],
}
WEATHERS = {"clear": [""], "rain": ["in the rain"], "snowfall": ["in falling snow"]}


def phrase(rng, place):
    """`place` is (where, hour, weather), or a colour name for a plain background."""
    if isinstance(place, str):
        return f"on {'an' if place[0] == 'o' else 'a'} {place} background"
    where, hour, weather = place
    known = PHRASES.get((where, hour))
    words = rng.choice(known) if known else f"{rng.choice(PHRASES[where, 'day'])} at {hour}"
    return " ".join([words, *filter(None, [rng.choice(WEATHERS[weather])])])


def lost_colours(place):
    if isinstance(place, str):
        # Neighbours in colour would make an outline the only difference.
        near = [{"red", "orange"}, {"yellow", "orange"}, {"black", "brown"}, {"white", "yellow"},
                {"blue", "purple"}, {"cyan", "gray"}, {"pink", "white"}]
        return {place}.union(*(pair for pair in near if place in pair))
    return LOST[place[0], place[1]] | ({"gray"} if place[2] == "rain" else set())


def gradient(top, bottom, size):
    column = np.linspace(0, 1, 64)[:, None]
    shades = np.asarray(top) * (1 - column) + np.asarray(bottom) * column
    return Image.fromarray(shades.astype(np.uint8)[:, None, :]).resize(size, Image.BILINEAR)


def draw_place(place, width, height, rng):
    """An RGB image."""
    if isinstance(place, str):
        base = np.asarray(COLOURS[place])
        return gradient(base * 0.96 + 255 * 0.04, base * 0.92, (width, height))
    where, hour, weather = place
    top, bottom = (RAINY if weather == "rain" else SKIES)[hour]
    ground = GROUNDS[where]
    horizon = height if ground is None else round(height * (0.60 + rng.uniform(-0.03, 0.03)))
    whole = Image.new("RGB", (width, height))
    whole.paste(gradient(top, bottom, (width, horizon)), (0, 0))
    if hour == "night" and weather == "clear":
        scatter_stars(whole, horizon, rng)
    if hour == "day" and weather == "clear":
        scatter_clouds(whole, horizon, rng)
    if ground is not None:
        dim = np.asarray(DIMMED[hour]) * (0.86 if weather == "rain" else 1.0)
        near, far = (np.asarray(c) * dim for c in ground)
        whole.paste(gradient(near, far, (width, height - horizon)), (0, horizon))
    return whole


def stamp(image, colour, draw_into):
    """Paints what `draw_into` draws, antialiased; it draws in `OVERSAMPLING` times the pixels."""
    large = Image.new("L", (image.width * OVERSAMPLING, image.height * OVERSAMPLING))
    draw_into(ImageDraw.Draw(large))
    image.paste(colour, (0, 0, *image.size), large.resize(image.size, Image.BOX))


def dots(draw, spots, radius):
    for x, y in spots:
        edges = [x - radius, y - radius, x + radius, y + radius]
        draw.ellipse([e * OVERSAMPLING for e in edges], fill=255)


def spread(count, width, height, rng):
    return [(rng.uniform(0, width), rng.uniform(0, height)) for _ in range(count)]


def scatter_stars(image, horizon, rng):
    count = max(3, image.width * horizon // 4000)
    spots = spread(count, image.width, horizon * 0.96, rng)
    stamp(image, (206, 208, 226), lambda draw: dots(draw, spots, rng.uniform(1.2, 1.6)))


def scatter_clouds(image, horizon, rng):
    puffs = []
    for _ in range(rng.choice([1, 2])):
        x, y = rng.uniform(0.1, 0.9) * image.width, rng.uniform(0.08, 0.3) * horizon
        r = image.width * rng.uniform(0.05, 0.075)
        puffs += [(x + dx * r, y + dy * r, r * scale)
                  for dx, dy, scale in ((-1.1, 0.25, 0.7), (0, 0, 1.0), (1.1, 0.25, 0.7))]

    def draw_into(draw):
        for x, y, r in puffs:
            edges = [x - r, y - 0.7 * r, x + r, y + 0.7 * r]
            draw.ellipse([e * OVERSAMPLING for e in edges], fill=255)

    stamp(image, (229, 240, 251), draw_into)


def draw_weather(image, place, rng):
    """What falls in front of the things: sparse, so that they stay whole."""
    if isinstance(place, str) or place[2] == "clear":
        return
    if place[2] == "snowfall":
        spots = spread(image.width * image.height // 2300, *image.size, rng)
        stamp(image, (250, 251, 253), lambda draw: dots(draw, spots, rng.uniform(1.5, 1.8)))
        return
    spots = spread(image.width * image.height // 2600, *image.size, rng)

    def draw_into(draw):
        for x, y in spots:
            ends = [x, y, x - 3.2, y + 9]
            draw.line([e * OVERSAMPLING for e in ends], fill=255, width=OVERSAMPLING + 1)

    stamp(image, (196, 210, 226) if place[1] != "night" else (112, 122, 150), draw_into)
