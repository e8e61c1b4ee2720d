"""The ControlNet's stage: mini-sdxl is frozen, and its encoder's copy learns to follow outlines.

The copy has no attention, as in diffusers' small variants: an outline says where, the prompt what.
"""

import concurrent.futures
import os
import random

import numpy as np
import torch
from diffusers import ControlNetModel

from encode_latents import encode
from models import TEXT_WIDTHS, TIME_WIDTH, UNET_WIDTHS
from outlines import example
from replicas import Replicas
from train_denoiser import EMPTY_SHARE, Loss
from training import Training, load_average

# (width, height): scenes, prompts of a step, share of the steps
BUCKETS = {(128, 128): (4000, 24, 0.75), (256, 256): (1000, 8, 0.25)}
# An outline that comes without words has to be enough to place things.
DROPPED_WORDS = 0.2
EMA_DECAY = 0.99


def controlnet():
    return ControlNetModel(
        in_channels=4, conditioning_channels=3, layers_per_block=1,
        down_block_types=("DownBlock2D",) * 3, mid_block_type="UNetMidBlock2D",
        block_out_channels=UNET_WIDTHS, attention_head_dim=1,
        transformer_layers_per_block=1, cross_attention_dim=sum(TEXT_WIDTHS),
        use_linear_projection=True, addition_embed_type="text_time",
        addition_time_embed_dim=TIME_WIDTH, norm_num_groups=16,
        projection_class_embeddings_input_dim=TEXT_WIDTHS[1] + 6 * TIME_WIDTH,
        conditioning_embedding_out_channels=(16, 24, 48, 64))


class Controlled(torch.nn.Module):
    """Noise as the frozen UNet predicts it with the ControlNet's residuals."""

    def __init__(self, unet):
        super().__init__()
        self.unet = unet.requires_grad_(False)
        self.controlnet = controlnet()
        wanted = self.controlnet.state_dict()
        same = {key: value for key, value in unet.state_dict().items()
                if key in wanted and wanted[key].shape == value.shape}
        self.controlnet.load_state_dict(same, strict=False)

    def forward(self, noisy, timesteps, context, pooled, hints, time_ids):
        added = {"text_embeds": pooled, "time_ids": time_ids}
        down, mid = self.controlnet(noisy, timesteps, context, controlnet_cond=hints,
                                    added_cond_kwargs=added, return_dict=False)
        return self.unet(noisy, timesteps, context, added_cond_kwargs=added,
                         down_block_additional_residuals=down, mid_block_additional_residual=mid,
                         return_dict=False)[0]


@torch.no_grad()
def encode_words(pipe, captions):
    context, _, pooled, _ = pipe.encode_prompt(captions, do_classifier_free_guidance=False)
    return context.half(), pooled.half()


def draw_bucket(pipe, pace, rng, size, count, threads):
    """Latents, hints and conditionings of `count` scenes."""
    pool = concurrent.futures.ThreadPoolExecutor(
        threads, initializer=lambda: torch.set_num_threads(1))
    parts = {"latents": [], "hints": [], "context": [], "pooled": []}
    for index in range(0, count, 16):
        pictures, hints, captions = zip(*[example(rng, *size) for _ in range(16)])
        halves = pool.map(lambda some: encode(pipe.vae, some), (pictures[:8], pictures[8:]))
        parts["latents"] += [(half * pipe.vae.config.scaling_factor).half() for half in halves]
        parts["hints"].append(torch.from_numpy(np.stack(hints)))
        context, pooled = encode_words(pipe, list(captions))
        parts["context"].append(context)
        parts["pooled"].append(pooled)
        pace.tell_sometimes(f"scenes {size[0]}x{size[1]} {index + 16}/{count}")
    return {"size": size, **{name: torch.cat(some) for name, some in parts.items()}}


def load_buckets(pipe, pace, threads):
    path = os.path.join(pace.out, "outline-scenes.pt")
    if not os.path.exists(path):
        rng = random.Random(31)
        torch.save([draw_bucket(pipe, pace, rng, size, count, threads)
                    for size, (count, _, _) in BUCKETS.items()], path)
    return torch.load(path, weights_only=False)


def share_of(bucket, count):
    chosen = torch.randint(0, len(bucket["latents"]), (count,))
    width, height = bucket["size"]
    kept = (torch.rand(count) >= EMPTY_SHARE + DROPPED_WORDS).float()
    hints = bucket["hints"][chosen].float().div(255)[:, None].expand(-1, 3, -1, -1)
    return {
        "latents": bucket["latents"][chosen].float(),
        "ids": [bucket["context"][chosen].float() * kept[:, None, None],
                bucket["pooled"][chosen].float() * kept[:, None]],
        "kept": hints,
        "time_ids": torch.tensor([[height, width, 0, 0, height, width]]).float().repeat(count, 1),
    }


def train(pace, threads, model):
    from measure import load_folder

    torch.manual_seed(5)
    pipe = load_folder(model)
    buckets = load_buckets(pipe, pace, threads)
    replicas = Replicas(Controlled(pipe.unet), threads)
    training = Training(pace, replicas, replicas.module.controlnet, "controlnet", EMA_DECAY,
                        rate=0.008)
    training.resume(seed=6)
    chances = torch.tensor([share for _, _, share in BUCKETS.values()])

    def draw():
        bucket = buckets[torch.multinomial(chances, 1).item()]
        count = BUCKETS[bucket["size"]][1] // threads
        return bucket["size"], [share_of(bucket, count) for _ in range(threads)]

    training.run(Loss(), draw)


def export(out, folder):
    """Writes the running average as a diffusers folder in f16."""
    network = load_average(controlnet(), os.path.join(out, "outlines.pt"))
    network.half().save_pretrained(folder)
