"""Records OpenCV's Canny on pictures that follow from formulas, for tests/control/hints.test.ts.

Run from the repository root: python tests/reference/make_canny.py (needs opencv-python-headless)
Writes tests/fixtures/canny.json: edges as bits, eight pixels to a byte, rows one after the other.
"""

import base64
import json

import cv2
import numpy

WIDTH, HEIGHT = 72, 56
THRESHOLDS = (100, 200)


def pictures():
    y, x = numpy.mgrid[0:HEIGHT, 0:WIDTH]
    waves = (3 * x + 7 * y + (x * y >> 4)) % 256
    disc = numpy.where((x - 30) ** 2 + (y - 25) ** 2 < 300, 210, 40) + (x * x + 5 * y) % 30
    steps = (x // 9 * 37 + y // 7 * 53) % 256
    for value in [waves, disc, steps]:
        red, green, blue = value, (value * 3 // 4 + 20), (255 - value)
        yield numpy.stack([red, green, blue], axis=2).astype(numpy.uint8)


def main():
    edges = []
    for picture in pictures():
        grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
        found = cv2.Canny(grey, *THRESHOLDS) > 0
        edges.append(base64.b64encode(numpy.packbits(found).tobytes()).decode())
    with open("tests/fixtures/canny.json", "w") as file:
        json.dump({"width": WIDTH, "height": HEIGHT, "edges": edges}, file, indent=1)
        file.write("\n")


main()
