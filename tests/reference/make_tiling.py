"""Decodes two latents of the golden model in blended tiles, as AutoencoderKL.enable_tiling() does.

Run from the repository root: python tests/reference/make_tiling.py
"""

import torch
from harness import decode, load_pipeline, relative_l2, save
from safetensors.torch import load_file

GOLDEN = "tests/fixtures/golden"


def decode_in_tiles(pipeline, latents, tile_size):
    """The decoder's raw output with tiles of `tile_size` pixels instead of the config's 256."""
    vae = pipeline.vae
    vae.enable_tiling()
    vae.tile_sample_min_size = tile_size
    vae.tile_latent_min_size = tile_size // 2 ** (len(vae.config.block_out_channels) - 1)
    image = decode(pipeline, latents)
    vae.disable_tiling()
    return image


def main():
    pipeline = load_pipeline(f"{GOLDEN}/model")
    square = load_file(f"{GOLDEN}/golden.safetensors")["vae.latent"]
    # 40 rows in tiles of 24: the last tile is narrower than the overlap, the one before it is cut.
    generator = torch.Generator("cpu").manual_seed(5)
    tall = torch.randn(1, square.shape[1], 40, 32, generator=generator) * square.std()
    tiles = {"square": 128, "tall": 192}
    latents = {"square": square, "tall": tall}
    tensors = {"tall.latent": tall}
    for name, latent in latents.items():
        image = decode_in_tiles(pipeline, latent, tiles[name])
        tensors[f"{name}.image"] = image
        whole = decode(pipeline, latent)
        print(f"{name}: {relative_l2(image, whole):.2e} away from the whole decode")
    notes = {"tile_pixels": tiles, "note": "square.latent is vae.latent of golden.safetensors"}
    save(f"{GOLDEN}/tiling", tensors, notes)


main()
