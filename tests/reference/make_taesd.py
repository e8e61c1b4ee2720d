"""Records diffusers' AutoencoderTiny: taesd.* in tests/fixtures, for tests/native/taesd.test.ts.

Run from the repository root: python tests/reference/make_taesd.py
Weights and latents are formulas; latents reach beyond the clamp at 3.
"""

import json
import math

import torch
from diffusers import AutoencoderTiny
from formula_weights import formula_tensor, seed_of, uniform
from safetensors.torch import save_file
from thin import thin

ROWS, WIDTH = 8, 12
SCALE = 4.0

torch.set_num_threads(1)
torch.set_grad_enabled(False)


def main():
    model = AutoencoderTiny().eval()
    own = model.decoder.state_dict()
    shapes = {f"decoder.{name}": list(tensor.shape) for name, tensor in own.items()}
    tensors = {
        name: torch.from_numpy(formula_tensor("taesd", name, shape))
        for name, shape in shapes.items()
    }
    model.decoder.load_state_dict({name[8:]: tensor for name, tensor in tensors.items()})
    shape = (1, 4, ROWS, WIDTH)
    latent = torch.from_numpy(uniform(seed_of("taesd.latent"), math.prod(shape))).reshape(shape)
    image = model.decode(latent * SCALE).sample
    kept = {name: tensor.contiguous() for name, tensor in thin({"image": image}).items()}
    save_file(kept, "tests/fixtures/taesd.safetensors")
    with open("tests/fixtures/taesd.json", "w") as file:
        json.dump({"rows": ROWS, "width": WIDTH, "scale": SCALE, "shapes": shapes}, file)
        file.write("\n")
    print(image.abs().mean().item(), image.std().item())


main()
