"""Records the golden model's outputs: golden, extra, rescale and tiling in tests/fixtures/golden.

golden.json lists the runs; it is read, not written. The model must exist: `bun run fixtures`
or make_golden_model.py. Run from the repository root: python tests/reference/make_golden.py
"""

import json
import sys

import torch
from harness import (
    decode,
    embed,
    forward_tensors,
    load_pipeline,
    relative_l2,
    run,
    save,
    text_tensors,
)
from safetensors.torch import load_file
from thin import formula_input

GOLDEN = "tests/fixtures/golden"
LONG_PROMPT = "a photo of a red circle above a blue square, " * 12
SIDE = 256  # pixels


def make_golden(pipeline, notes):
    tensors = {}
    for seed, shape, name in [
        (0, (1, 4, 32, 32), "cpu_seed0_1x4x32x32_twice"),
        (42, (64,), "cpu_seed42_64"),
        (7, (15,), "cpu_seed7_15"),
    ]:
        generator = torch.Generator("cpu").manual_seed(seed)
        count = 2 if name.endswith("twice") else 1
        draws = [torch.randn(shape, generator=generator) for _ in range(count)]
        tensors[f"rng.{name}"] = torch.cat(draws)
    runs = {spec["name"]: spec for spec in notes["runs"]}
    tensors |= text_tensors(pipeline, runs["euler"]["prompt"], runs["euler"]["negative"])
    tensors |= forward_tensors(pipeline, "golden", SIDE, SIDE)[1]
    for spec in notes["runs"]:
        tensors |= run(pipeline, spec)
    tensors["run.euler.image"] = decode(pipeline, tensors["run.euler.latents"])
    return tensors


def make_extra(pipeline, runs):
    """Runs without guidance and without a negative prompt, and two more prompts' embeddings."""
    extra = [
        runs["euler"] | {"name": "euler_no_guidance", "guidance": 1.0},
        runs["euler"] | {"name": "euler_zero_negative", "negative": None},
        runs["euler"] | {"name": "euler_empty_negative", "negative": ""},
        runs["euler_a"] | {"name": "euler_a_no_guidance", "guidance": 1.0},
    ]
    tensors = {}
    for spec in extra:
        tensors |= run(pipeline, spec)
    for name, prompt in {"long": LONG_PROMPT, "empty": ""}.items():
        positive, _, pooled, _ = embed(pipeline, prompt, None)
        tensors |= {f"text.{name}.prompt_embeds": positive, f"text.{name}.pooled": pooled}
    notes = {
        "runs": extra,
        "prompts": {"long": LONG_PROMPT, "empty": ""},
        "note": "as golden.json; a negative of null means zeros (force_zeros_for_empty_prompt)",
    }
    return tensors, notes


def make_rescale(pipeline, recorded):
    """Latents of every sampler with guidance_rescale."""
    tensors, runs = {}, []
    for name, rescale in [("euler", 0.7), ("euler_a", 0.7), ("ddim", 0.7), ("euler", 1.0)]:
        spec = recorded[name] | {"name": f"{name}_rescale_{rescale}", "rescale": rescale}
        spec |= {"steps": 6, "guidance": 7.5}
        key = f"run.{spec['name']}.latents"
        tensors[key] = run(pipeline, spec)[key]
        without = run(pipeline, spec | {"rescale": 0.0})[key]
        print(f"{spec['name']}: {relative_l2(tensors[key], without):.3f} moved")
        runs.append(spec)
    return tensors, {"runs": runs, "note": "as golden.json"}


def decode_in_tiles(pipeline, latents, tile_size):
    """The decoder's raw output with tiles of `tile_size` pixels, as enable_tiling() blends them."""
    vae = pipeline.vae
    vae.enable_tiling()
    vae.tile_sample_min_size = tile_size
    vae.tile_latent_min_size = tile_size // 2 ** (len(vae.config.block_out_channels) - 1)
    image = decode(pipeline, latents)
    vae.disable_tiling()
    return image


def make_tiling(pipeline):
    """Two latents decoded in blended tiles."""
    # 40 rows in tiles of 24: the last tile is narrower than the overlap, the one before it is cut.
    tiles, rows = {"square": 128, "tall": 192}, {"square": 32, "tall": 40}
    tensors = {}
    for name, tile in tiles.items():
        latent = formula_input(f"golden/tiling.{name}", (1, 4, rows[name], 32), 1.4)
        tensors[f"{name}.image"] = decode_in_tiles(pipeline, latent, tile)
        whole = decode(pipeline, latent)
        away = relative_l2(tensors[f"{name}.image"], whole)
        print(f"{name}: {away:.2e} away from the whole decode")
    return tensors, {"tile_pixels": tiles, "latent_rows": rows, "note": "latents by formula"}


def print_distances(tensors, path):
    """Prints the ten largest errors against a file of whole tensors recorded elsewhere."""
    others = load_file(path)
    distances = {
        name: relative_l2(tensor, others[name])
        for name, tensor in tensors.items()
        if name in others and not name.startswith(("unet.", "vae."))  # other inputs
    }
    print(f"{len(distances)} tensors compared with {path}")
    for name, distance in sorted(distances.items(), key=lambda item: -item[1])[:10]:
        print(f"{distance:.2e} {name}")


def main():
    pipeline = load_pipeline(f"{GOLDEN}/model")
    with open(f"{GOLDEN}/golden.json") as file:
        notes = json.load(file)
    runs = {spec["name"]: spec for spec in notes["runs"]}
    golden = make_golden(pipeline, notes)
    for path in sys.argv[1:]:
        print_distances(golden, path)
    save(f"{GOLDEN}/golden", golden, notes)
    save(f"{GOLDEN}/extra", *make_extra(pipeline, runs))
    save(f"{GOLDEN}/rescale", *make_rescale(pipeline, runs))
    save(f"{GOLDEN}/tiling", *make_tiling(pipeline))


main()
