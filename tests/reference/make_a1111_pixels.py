"""Records what A1111 (Forge) makes of pixels with Pillow and OpenCV before and after sampling, for
tests/control/a1111-pixels.test.ts: hashes of blurred masks, filled and resized images, and masked areas.

Run from the repository root: python tests/reference/make_a1111_pixels.py sd-webui-forge-classic
Needs opencv-python-headless; of the clone, which may be bare, masking.py and images.py are run.
"""

import hashlib
import json
import sys
import types

import cv2
import numpy
from make_compat import functions, source
from PIL import Image

SIZES = [(53, 37), (40, 60)]
DEVIATIONS = [1, 4, 20]
MODES = {"stretch": 0, "cover": 1, "fit": 2}
TARGETS = [(64, 64), (24, 40), (128, 32)]
# Of a mask: left, top, right and bottom; the padding, then the size that is computed.
AREAS = [
    ((20, 10, 40, 30), 5, (64, 64)),
    ((0, 0, 10, 30), 0, (64, 64)),
    ((45, 2, 53, 37), 8, (96, 32)),
    ((10, 30, 30, 37), 32, (32, 96)),
]


def image(width, height):
    y, x, c = numpy.mgrid[0:height, 0:width, 0:3]
    return ((7 * x + 13 * y + 70 * c + x * y // 3) % 256).astype(numpy.uint8)


def mask(width, height):
    y, x = numpy.mgrid[0:height, 0:width]
    soft = (11 * x + 5 * y) % 256
    inside = (x >= 9) & (x < width - 8) & (y >= 5) & (y < height - 12)
    return numpy.where(inside, 255, numpy.where(y >= height - 6, soft, 0)).astype(numpy.uint8)


def digits(pixels):
    return hashlib.sha256(numpy.ascontiguousarray(pixels).tobytes()).hexdigest()[:16]


def blurred(grey, deviation):
    size = 2 * int(2.5 * deviation + 0.5) + 1
    return cv2.GaussianBlur(cv2.GaussianBlur(grey, (size, 1), deviation), (1, size), deviation)


def main():
    forge = sys.argv[1]
    masking = types.ModuleType("masking")
    exec(compile(source(forge, "modules/masking.py"), "masking.py", "exec"), masking.__dict__)
    images = functions(forge, "modules/images.py", {"resize_image"})
    images.update(Image=Image, LANCZOS=Image.LANCZOS, opts=types.SimpleNamespace(upscaler_for_img2img=None))
    resize = images["resize_image"]
    found = {"blurred": {}, "filled": {}, "resized": {}, "areas": []}
    for width, height in SIZES:
        rgb, grey = image(width, height), mask(width, height)
        at = f"{width}x{height}"
        for deviation in DEVIATIONS:
            found["blurred"][f"{at} {deviation}"] = digits(blurred(grey, deviation))
        found["filled"][at] = digits(numpy.array(masking.fill(Image.fromarray(rgb), Image.fromarray(grey))))
        for target in TARGETS:
            for name, mode in MODES.items():
                made = resize(mode, Image.fromarray(rgb), *target)
                found["resized"][f"{at} {target[0]}x{target[1]} {name}"] = digits(numpy.array(made))
    width, height = SIZES[0]
    for bounds, padding, size in AREAS:
        grey = numpy.zeros((height, width), numpy.uint8)
        grey[bounds[1] : bounds[3], bounds[0] : bounds[2]] = 255
        region = masking.get_crop_region(Image.fromarray(grey), padding)
        area = masking.expand_crop_region(region, *size, width, height)
        found["areas"].append({"bounds": bounds, "padding": padding, "size": size, "area": area})
    with open("tests/fixtures/a1111-pixels.json", "w") as file:
        json.dump(found, file, separators=(",", ":"))
        file.write("\n")


main()
