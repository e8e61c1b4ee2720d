"""Records what diffusers' UNet gives for shapes that differ from SDXL base: a refiner's five time
ids, the nine input channels of inpainting, and distilled models, for
tests/native/model-shapes.test.ts.

    PYTHONPATH=DIFFUSERS/src python make_model_shapes.py

The first two are the golden model's UNet with one weight changed as the test changes it: columns of
add_embedding.linear_1 that the shorter vector lacks are cut off; the channels that conv_in has more
are its first ones, halved and in reverse order. The distilled ones are golden configs with the
changes of distilled.json and weights from formula_weights.py.
"""

import json
import os

import torch
from diffusers import UNet2DConditionModel
from formula_weights import formula_tensor
from safetensors.torch import save_file

torch.set_num_threads(2)
torch.set_grad_enabled(False)

tests = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")
folder = os.path.join(tests, "fixtures/golden/model/unet")
golden = UNet2DConditionModel.from_pretrained(folder, torch_dtype=torch.float32).eval()


def normal(seed, *shape):
    return torch.randn(shape, generator=torch.Generator("cpu").manual_seed(seed))


def changed(name, change, **config):
    """The golden UNet with another config and one weight changed to fit it."""
    state = golden.state_dict()
    state[name] = change(state[name])
    unet = UNet2DConditionModel.from_config({**golden.config, **config}).eval()
    unet.load_state_dict(state)
    return unet


def distilled(changes):
    """A UNet of the golden model's widths with other blocks, its weights from the formula."""
    unet = UNet2DConditionModel.from_config({**golden.config, **changes}).eval()
    state = unet.state_dict()
    formula = {name: formula_tensor("unet", name, tuple(state[name].shape)) for name in state}
    unet.load_state_dict({name: torch.from_numpy(values) for name, values in formula.items()})
    return unet


def predict(unet, sample, time_ids):
    config = unet.config
    pooled = config.projection_class_embeddings_input_dim - len(
        time_ids
    ) * config.addition_time_embed_dim
    added = {"text_embeds": normal(3, 1, pooled), "time_ids": torch.tensor([time_ids])}
    hidden = normal(2, 1, 77, config.cross_attention_dim)
    return unet(sample, 500, hidden, added_cond_kwargs=added).sample


sample = normal(1, 1, 4, 8, 8)
width = golden.config.projection_class_embeddings_input_dim
kept = width - golden.config.addition_time_embed_dim
refiner = changed(
    "add_embedding.linear_1.weight",
    lambda weight: weight[:, :kept],
    projection_class_embeddings_input_dim=kept,
)
inpainting = changed(
    "conv_in.weight",
    lambda weight: torch.cat([weight, weight.flip(1) / 2, weight[:, :1] / 2], dim=1),
    in_channels=9,
)
mask_and_image = normal(4, 1, 5, 8, 8)
base_ids = [512.0, 512.0, 0.0, 0.0, 2.5, 0.0]
with open(os.path.join(tests, "fixtures/distilled.json")) as file:
    variants = json.load(file)
save_file(
    {
        "refiner": predict(refiner, sample, [512.0, 512.0, 0.0, 0.0, 2.5]),
        "inpainting": predict(
            inpainting,
            torch.cat([sample, mask_and_image], dim=1),
            base_ids,
        ),
        **{name: predict(distilled(variants[name]), sample, base_ids) for name in variants},
    },
    os.path.join(tests, "fixtures/model-shapes.safetensors"),
)
