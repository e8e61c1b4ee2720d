"""Records diffusers' tiled encode by the golden model's VAE: tests/fixtures/tiled-encode.safetensors,
for tests/native/tiled-encode.test.ts.

Run from the repository root: python tests/reference/make_tiled_encode.py
Images are formulas; tiles are of 64 pixels, and the last ones of a side are shorter.
"""

import torch
from diffusers import AutoencoderKL
from safetensors.torch import save_file
from thin import formula_input, thin

TILE = 64
SIZES = ((96, 160), (160, 64))

torch.set_num_threads(1)
torch.set_grad_enabled(False)


def main():
    vae = AutoencoderKL.from_pretrained("tests/fixtures/golden/model", subfolder="vae").eval()
    vae.tile_sample_min_size = TILE
    vae.tile_latent_min_size = TILE // 8
    vae.enable_tiling()
    means = {}
    for height, width in SIZES:
        name = f"{height}x{width}"
        image = formula_input(f"tiled_encode {name}", (1, 3, height, width), 1.0)
        means[name] = vae.encode(image).latent_dist.mean * vae.config.scaling_factor
    kept = {name: tensor.contiguous() for name, tensor in thin(means, 128, 256).items()}
    save_file(kept, "tests/fixtures/tiled-encode.safetensors")


if __name__ == "__main__":
    main()
