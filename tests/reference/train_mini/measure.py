"""Measures a model folder with prompts never trained on, and the judge itself on known pictures."""

import collections
import os
import random

import numpy as np
import torch
from PIL import Image

from judge import judge
from scenes import caption, draw, held_back_scene
from train_autoencoder import to_tensor

# How many of the 200 held-back prompts are of each kind.
KINDS = {"one": 60, "pair": 100, "count": 20, "row": 20}
SHEET = [
    "a red house left of a green tree on the grass", "a yellow moon above a blue boat by the sea",
    "a large orange cat on a purple background", "three pink flowers in the snow",
    "a cyan fish below a white star in the night sky", "a brown mushroom on the grass in the rain",
    "a red heart, a yellow star and a blue ring on a white background",
    "a purple diamond in the desert at sunset",
]


def held_back_scenes(counts=None, seed=5):
    rng = random.Random(seed)
    return [(scene, caption(scene, rng)) for kind, count in (counts or KINDS).items()
            for scene in (held_back_scene(rng, kind) for _ in range(count))]


class Tally:
    """Shares of what was right, in all and for each kind of scene."""

    def __init__(self):
        self.right = collections.defaultdict(list)

    def add(self, scene, picture):
        verdict = judge(picture, scene)
        for name, values in verdict.items():
            self.right[name] += values
            self.right[f"{scene.kind} {name}"] += values
        return verdict

    def share(self, name):
        return float(np.mean(self.right[name])) if self.right[name] else float("nan")

    def tell(self, title):
        names = ("colour", "object", "relation", "count")
        print(title, " ".join(f"{name} {100 * self.share(name):.1f}%" for name in names))
        for kind in KINDS:
            told = [f"{name} {100 * self.share(f'{kind} {name}'):.1f}%" for name in names
                    if self.right[f"{kind} {name}"]]
            if told:
                print(f"  {kind}:", " ".join(told))


def draw_with(pipe, prompts, steps=25, guidance=4.0, size=(256, 256), first_seed=1000):
    """Pictures as bytes, one seed for each prompt, four at a time."""
    pipe.set_progress_bar_config(disable=True)
    for start in range(0, len(prompts), 4):
        some = prompts[start:start + 4]
        seeds = [torch.Generator().manual_seed(first_seed + start + i) for i in range(len(some))]
        images = pipe(some, width=size[0], height=size[1], num_inference_steps=steps,
                      guidance_scale=guidance, generator=seeds).images
        yield from (np.asarray(image) for image in images)


def load_folder(folder):
    from diffusers import StableDiffusionXLPipeline

    return StableDiffusionXLPipeline.from_pretrained(folder, torch_dtype=torch.float32)


def measure(pipe, counts=None, keep=None):
    scenes = held_back_scenes(counts)
    tally = Tally()
    pictures = draw_with(pipe, [words for _, words in scenes])
    for index, ((scene, words), picture) in enumerate(zip(scenes, pictures)):
        verdict = tally.add(scene, picture)
        if keep:
            Image.fromarray(picture).save(os.path.join(keep, f"{index:03}.png"))
            print(index, words, verdict)
    tally.tell("held-back prompts:")
    return tally


def check_judge(count=300, seed=6, vae=None):
    """The judge on the renderer's own scenes, on those of other captions, and through a VAE."""
    rng = random.Random(seed)
    scenes = [held_back_scene(rng, rng.choice(list(KINDS))) for _ in range(count)]
    pictures = [np.asarray(draw(scene, 256, 256, rng)[0]) for scene in scenes]
    own, others, coded = Tally(), Tally(), Tally()
    for index, (scene, picture) in enumerate(zip(scenes, pictures)):
        own.add(scene, picture)
        alike = [i % count for i in range(index + 1, index + count)
                 if (scenes[i % count].place, scenes[i % count].kind) == (scene.place, scene.kind)]
        if alike:
            others.add(scene, pictures[alike[0]])
        if vae is not None:
            coded.add(scene, through(vae, picture))
    own.tell("the renderer's own scenes:")
    others.tell("another scene of the same place and kind:")
    if vae is not None:
        coded.tell("through the autoencoder:")
    return own, others, coded


@torch.no_grad()
def through(vae, picture):
    made = vae.decode(vae.encode(to_tensor(picture[None])).latent_dist.mean).sample
    return ((made[0].permute(1, 2, 0).clamp(-1, 1) + 1) * 127.5).round().byte().numpy()


def measure_autoencoder(vae, count=64, seed=7):
    """Prints MAE (levels of 255) and PSNR (dB, mean over pictures) on fresh 256x256 scenes."""
    rng = random.Random(seed)
    scenes = [held_back_scene(rng, rng.choice(list(KINDS))) for _ in range(count)]
    absolute, decibels = [], []
    for scene in scenes:
        picture = np.asarray(draw(scene, 256, 256, rng)[0])
        error = through(vae, picture).astype(float) - picture
        absolute.append(np.abs(error).mean())
        decibels.append(10 * np.log10(255**2 / (error**2).mean()))
    print(f"autoencoder: MAE {np.mean(absolute):.2f} of 255, PSNR {np.mean(decibels):.2f} dB "
          f"(worst {np.min(decibels):.2f})")


def contact_sheet(pipe, path, size=(256, 256), seed=42):
    pictures = list(draw_with(pipe, SHEET, size=size, first_seed=seed))
    sheet = Image.new("RGB", (4 * size[0], (len(pictures) + 3) // 4 * size[1]))
    for index, picture in enumerate(pictures):
        sheet.paste(Image.fromarray(picture), (index % 4 * size[0], index // 4 * size[1]))
    sheet.save(path)
