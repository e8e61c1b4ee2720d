"""Records images by a LoRA, a ControlNet, an IP-Adapter and a model for inpainting at once in diffusers, for
tests/native/together.test.ts.

Run from the repository root: python tests/reference/make_together.py
Writes tests/fixtures/together.*: latents of the golden model with nine input channels. The networks are those of
make_controls.py, make_ip_adapter.py and make_adapters.py, the image those of make_inputs.py. Needs peft.
"""

import json
import math
import tempfile

import numpy
import torch
from diffusers import EulerDiscreteScheduler, StableDiffusionXLControlNetInpaintPipeline
from formula_weights import seed_of, uniform
from harness import load_pipeline, save
from make_controls import hint, network
from make_inputs import mask, nine_channels, picture
from make_ip_adapter import ENCODER, adapter_shapes, formula, image_encoder, nested
from make_ip_adapter import picture as seen
from PIL import Image
from safetensors.torch import save_file
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

SIDE = 64  # pixels
STRIDE = 17
SETTINGS = {"seed": 3, "steps": 5, "strength": 0.8, "lora": "peft", "loraScale": 0.8, "controlScale": 0.7, "ipScale": 0.6}


def write_lora(name, path):
    """As make_adapters.py has it, whose import needs the model's weights."""
    with open("tests/fixtures/adapters/files.json") as file:
        entry = json.load(file)[name]
    made = {}
    for key, (amplitude, offset, *shape) in entry["tensors"].items():
        u = uniform(seed_of(f"adapters/{name}/{key}"), math.prod(shape))
        values = numpy.float32(offset) + u * numpy.float32(amplitude)
        made[key] = torch.from_numpy(values.astype(numpy.float32)).reshape(shape)
    save_file(made, path, metadata=entry["metadata"])


def main():
    torch.set_num_threads(1)
    own = load_pipeline("tests/fixtures/golden/model")
    encoder, _ = image_encoder()
    side = ENCODER["image_size"]
    parts = ["vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2"]
    pipeline = StableDiffusionXLControlNetInpaintPipeline(
        **{name: getattr(own, name) for name in parts},
        unet=nine_channels(own.unet),
        controlnet=network("plain", own.unet),
        scheduler=EulerDiscreteScheduler.from_config(own.scheduler.config),
        force_zeros_for_empty_prompt=own.config.force_zeros_for_empty_prompt,
        add_watermarker=False,
        image_encoder=encoder,
        feature_extractor=CLIPImageProcessorPil(size=side, crop_size=side),
    )
    pipeline.set_progress_bar_config(disable=True)
    adapter = nested(formula("ip_adapter_plain", adapter_shapes(pipeline.unet, "plain")))
    pipeline.unet._load_ip_adapter_weights([adapter], low_cpu_mem_usage=False)
    pipeline.set_ip_adapter_scale([SETTINGS["ipScale"]])
    with tempfile.TemporaryDirectory() as folder:
        write_lora(SETTINGS["lora"], f"{folder}/lora.safetensors")
        pipeline.load_lora_weights(folder, weight_name="lora.safetensors", adapter_name="lora")
    pipeline.set_adapters(["lora"], [SETTINGS["loraScale"]])
    latents = pipeline(
        "a red circle",
        negative_prompt="blurry",
        image=Image.fromarray(picture()),
        mask_image=Image.fromarray(mask()),
        control_image=hint(0),
        ip_adapter_image=[[seen(0)]],
        strength=SETTINGS["strength"],
        num_inference_steps=SETTINGS["steps"],
        controlnet_conditioning_scale=SETTINGS["controlScale"],
        guidance_scale=5.0,
        generator=torch.Generator("cpu").manual_seed(SETTINGS["seed"]),
        output_type="latent",
        width=SIDE,
        height=SIDE,
    ).images
    save("tests/fixtures/together", {"latents": latents.flatten()[::STRIDE]}, SETTINGS | {"stride": STRIDE})


if __name__ == "__main__":
    main()
