"""How well pictures follow outlines: the overlap of what is drawn with the scene that was outlined.

Each scene is one that training never had, with its thing where words alone would not put it.
"""

import os
import random

import numpy as np
import torch
from PIL import Image

from judge import BACKGROUND_DISTANCE, shades_of
from outlines import drawn_outlines, moved_layout, silhouettes, without_sizes
from scenes import caption, held_back_scene

STEPS = 25


def outlined_scene(rng, side):
    """A scene of one thing that training never had, in an unusual place, and its caption."""
    scene = without_sizes(held_back_scene(rng, "one"))
    return scene, list(moved_layout(scene, side, side, rng)), caption(scene, rng)


def differs(picture, place):
    """Where a picture has none of its place's shades."""
    shades = shades_of(place)
    distances = np.stack([np.square(picture.astype(float) - shade).sum(-1) for shade in shades])
    return np.sqrt(distances.min(0)) > BACKGROUND_DISTANCE


def overlap(first, second):
    return (first & second).sum() / max(1, (first | second).sum())


def load(model, controlnet):
    from diffusers import ControlNetModel, StableDiffusionXLControlNetPipeline

    network = ControlNetModel.from_pretrained(controlnet, torch_dtype=torch.float32)
    pipe = StableDiffusionXLControlNetPipeline.from_pretrained(
        model, controlnet=network, torch_dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def measure(model, controlnet, out, count, side=256):
    pipe = load(model, controlnet)
    rng = random.Random(77)
    with_outline, without = [], []
    for index in range(count):
        scene, placed, words = outlined_scene(rng, side)
        hint = Image.fromarray(drawn_outlines(placed, side, side, 2)).convert("RGB")
        wanted = next(silhouettes(placed, side, side))
        for scale, overlaps in ((1.0, with_outline), (0.0, without)):
            picture = pipe(words, image=hint, controlnet_conditioning_scale=scale, width=side,
                           height=side, num_inference_steps=STEPS, guidance_scale=4,
                           generator=torch.Generator().manual_seed(index)).images[0]
            overlaps.append(overlap(differs(np.asarray(picture), scene.place), wanted))
            picture.save(os.path.join(out, f"outline-{index:02}-{scale:.0f}.png"))
        hint.save(os.path.join(out, f"outline-{index:02}-hint.png"))
        print(index, words, f"{with_outline[-1]:.2f} against {without[-1]:.2f}", flush=True)
    print(f"overlap with the outlined shape: {np.mean(with_outline):.3f} with the ControlNet, "
          f"{np.mean(without):.3f} without")
