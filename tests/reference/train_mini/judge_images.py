"""Judges images that BasedXL wrote of held-back prompts.

    python tests/reference/train_mini/judge_images.py prompts 40 > prompts.txt
    bun run bench int8 --prompts prompts.txt --keep images
    python tests/reference/train_mini/judge_images.py shares 40 images/f32 images/int8-as-it-is

The second number is that of the prompts, of which the kinds have their shares of 200.
"""

import os
import sys

import numpy as np
from PIL import Image

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from measure import KINDS, Tally, held_back_scenes


def main():
    what, count, *folders = sys.argv[1:]
    total = sum(KINDS.values())
    scenes = held_back_scenes({kind: some * int(count) // total for kind, some in KINDS.items()})
    if what == "prompts":
        print("\n".join(words for _, words in scenes))
        return
    for folder in folders:
        tally = Tally()
        for index, (scene, _) in enumerate(scenes):
            picture = Image.open(os.path.join(folder, f"{index:03}.png"))
            tally.add(scene, np.asarray(picture.convert("RGB")))
        tally.tell(folder)


main()
