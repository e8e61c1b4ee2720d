"""Writes the trained networks as a diffusers folder in f16, with basedxl's defaults."""

import json
import os

import torch

import tokenizer
from encode_latents import SPREAD
from models import autoencoder, scheduler
from train_denoiser import Networks, Words
from training import load_average

DEFAULTS = {"prompt": "a red house left of a green tree on the grass", "width": 256,
            "height": 256, "steps": 25, "guidanceScale": 4}


def load_autoencoder(out):
    """As the latents have it: with channels centred and scaled."""
    path = os.path.join(out, "latents.pt")
    vae = autoencoder()
    vae.load_state_dict(torch.load(path, weights_only=False)["vae"])
    vae.register_to_config(scaling_factor=1 / SPREAD)
    return vae.eval()


def load_networks(out, words):
    networks = Networks(len(words.vocabulary))
    return load_average(networks, os.path.join(out, "unet.pt")).eval()


def pipeline(out):
    from diffusers import StableDiffusionXLPipeline

    words = Words()
    networks = load_networks(out, words)
    return StableDiffusionXLPipeline(
        vae=load_autoencoder(out), text_encoder=networks.text_encoder,
        text_encoder_2=networks.text_encoder_2, unet=networks.unet,
        tokenizer=words.tokenizers[0], tokenizer_2=words.tokenizers[1], scheduler=scheduler(),
        force_zeros_for_empty_prompt=True)


def export(out, folder):
    pipe = pipeline(out)
    for module in (pipe.vae, pipe.text_encoder, pipe.text_encoder_2, pipe.unet):
        module.half()
    pipe.save_pretrained(folder)
    vocabulary, merges = tokenizer.train()
    for name, pad in (("tokenizer", "<|endoftext|>"), ("tokenizer_2", "!")):
        for left in os.listdir(os.path.join(folder, name)):
            os.remove(os.path.join(folder, name, left))
        tokenizer.write(os.path.join(folder, name), vocabulary, merges, pad)
    with open(os.path.join(folder, "basedxl.json"), "w", encoding="utf-8") as file:
        file.write(json.dumps(DEFAULTS, indent=2) + "\n")
    sizes = [os.path.getsize(os.path.join(where, name))
             for where, _, names in os.walk(folder) for name in names]
    print(f"{folder}: {sum(sizes) / 1e6:.1f} MB")
