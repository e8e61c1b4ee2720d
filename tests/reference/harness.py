"""Helpers of all fixture scripts: load a diffusers folder in f32 on the CPU, record outputs.

Tensor names and conventions are those of tests/fixtures/golden/README.md. Latents are recorded in
the sampler's own scale; the decoder is fed latents / scaling_factor, the encoder's mean is recorded
times it.
"""

import json
import os

import diffusers
import torch
from diffusers import (
    AutoencoderKL,
    EulerDiscreteScheduler,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from safetensors.torch import save_file
from thin import formula_input, thin
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

torch.set_num_threads(2)
torch.set_grad_enabled(False)


def load_pipeline(folder, variants=None):
    """The pipeline of `folder` in f32. `variants` maps a component to "fp16", say."""
    variant = (variants or {}).get
    part = {
        "text_encoder": CLIPTextModel,
        "text_encoder_2": CLIPTextModelWithProjection,
        "unet": UNet2DConditionModel,
        "vae": AutoencoderKL,
    }
    models = {
        name: (
            kind.from_pretrained(
                f"{folder}/{name}", dtype=torch.float32, variant=variant(name)
            ).eval()
            if name.startswith("text")
            else kind.from_pretrained(
                f"{folder}/{name}",
                torch_dtype=torch.float32,
                variant=variant(name),
                low_cpu_mem_usage=False,
            ).eval()
        )
        for name, kind in part.items()
    }
    with open(f"{folder}/model_index.json") as file:
        force_zeros = json.load(file).get("force_zeros_for_empty_prompt", True)
    pipeline = StableDiffusionXLPipeline(
        **models,
        tokenizer=CLIPTokenizer.from_pretrained(f"{folder}/tokenizer"),
        tokenizer_2=CLIPTokenizer.from_pretrained(f"{folder}/tokenizer_2"),
        scheduler=EulerDiscreteScheduler.from_pretrained(f"{folder}/scheduler"),
        force_zeros_for_empty_prompt=force_zeros,
        add_watermarker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def token_ids(pipeline, prompt):
    """The 77 ids of both tokenizers, padded and truncated as the pipeline does it."""
    return [
        tokenizer(prompt, padding="max_length", max_length=77, truncation=True).input_ids
        for tokenizer in (pipeline.tokenizer, pipeline.tokenizer_2)
    ]


def embed(pipeline, prompt, negative):
    """(prompt_embeds, negative_prompt_embeds, pooled, negative_pooled) of the pipeline."""
    return pipeline.encode_prompt(
        prompt, negative_prompt=negative, do_classifier_free_guidance=True
    )


def run(pipeline, spec):
    """Generates one image's latents; `spec` is an entry of golden.json's `runs`."""
    model_scheduler = pipeline.scheduler
    scheduler_class = getattr(diffusers, spec["scheduler"])
    scheduler = scheduler_class.from_config(model_scheduler.config, **spec["config"])
    pipeline.scheduler = scheduler
    first = {}

    def keep_first(_, step, __, tensors):
        if step == 0:
            first["latents"] = tensors["latents"].clone()
        return tensors

    latents = pipeline(
        spec["prompt"],
        negative_prompt=spec["negative"],
        width=spec["width"],
        height=spec["height"],
        num_inference_steps=spec["steps"],
        guidance_scale=spec["guidance"],
        guidance_rescale=spec.get("rescale", 0.0),
        generator=torch.Generator("cpu").manual_seed(spec["seed"]),
        output_type="latent",
        callback_on_step_end=keep_first,
    ).images
    pipeline.scheduler = model_scheduler  # or the next run would inherit this one's settings
    prefix = f"run.{spec['name']}"
    out = {f"{prefix}.latents": latents, f"{prefix}.step0": first["latents"]}
    out[f"{prefix}.timesteps"] = scheduler.timesteps.float()
    if hasattr(scheduler, "sigmas"):
        out[f"{prefix}.sigmas"] = scheduler.sigmas.float()
    return out


def decode(pipeline, latents):
    """The decoder's raw output, not clamped."""
    return pipeline.vae.decode(latents / pipeline.vae.config.scaling_factor).sample


def encode_mean(pipeline, image):
    """The posterior's mean, times the scaling factor."""
    return pipeline.vae.encode(image).latent_dist.mean * pipeline.vae.config.scaling_factor


def forward_tensors(pipeline, name, width, height):
    """Outputs of one pass through the UNet and both halves of the VAE, on formula inputs."""
    unet, factor = pipeline.unet.config, pipeline.vae_scale_factor
    latent_shape = (unet.in_channels, height // factor, width // factor)
    pooled_width = pipeline.text_encoder_2.config.projection_dim
    inputs = {
        "unet.sample": formula_input(f"{name}/unet.sample", (2, *latent_shape), 1.7),
        "unet.encoder_hidden_states": formula_input(
            f"{name}/unet.encoder_hidden_states", (2, 77, unet.cross_attention_dim), 1.7
        ),
        "unet.text_embeds": formula_input(f"{name}/unet.text_embeds", (2, pooled_width), 1.7),
        "vae.latent": formula_input(f"{name}/vae.latent", (1, *latent_shape), 1.4),
        "vae.encode_image": formula_input(f"{name}/vae.encode_image", (1, 3, height, width), 1.0),
    }
    return inputs, forward(pipeline, inputs, width, height)


def forward(pipeline, inputs, width, height):
    """`inputs` through the UNet and both halves of the VAE, in the inputs' own type."""
    time_ids = torch.tensor([[height, width, 0, 0, height, width]] * 2)
    return {
        "unet.out": pipeline.unet(
            inputs["unet.sample"],
            torch.tensor([601.0]),
            encoder_hidden_states=inputs["unet.encoder_hidden_states"],
            added_cond_kwargs={
                "text_embeds": inputs["unet.text_embeds"],
                "time_ids": time_ids.to(inputs["unet.sample"].dtype),
            },
        ).sample,
        "vae.image": decode(pipeline, inputs["vae.latent"]),
        "vae.encode_mean": encode_mean(pipeline, inputs["vae.encode_image"]),
    }


def text_tensors(pipeline, prompt, negative):
    """Outputs of the text encoders for both prompts."""
    positive, negative, pooled, negative_pooled = embed(pipeline, prompt, negative)
    return {
        "text.prompt_embeds": positive,
        "text.negative_prompt_embeds": negative,
        "text.pooled": pooled,
        "text.negative_pooled": negative_pooled,
    }


def relative_l2(ours, reference):
    """|ours - reference| / |reference|, in doubles."""
    return float((ours.double() - reference.double()).norm() / reference.double().norm())


def save(path, tensors, notes):
    """Writes `path`.safetensors, thinned, and `path`.json; refuses non-finite values."""
    for name, tensor in tensors.items():
        assert bool(torch.isfinite(tensor).all()), f"{name} is not finite"
    stored = {name: tensor.float().contiguous().clone() for name, tensor in thin(tensors).items()}
    save_file(stored, f"{path}.safetensors")
    os.chmod(f"{path}.safetensors", 0o644)
    with open(f"{path}.json", "w") as file:
        json.dump(notes, file, indent=1)
        file.write("\n")
