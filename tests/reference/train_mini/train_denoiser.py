"""The denoiser's stage: UNet and both text encoders together, on the cached latents.

Small pictures first, which teach words and places at a quarter of the price, then all sizes.
"""

import os

import torch
from diffusers.models.attention_processor import AttnProcessor

import tokenizer
from models import alphas_cumprod, text_encoders, unet
from replicas import Replicas
from training import Training

# (share of the stage's time, weight of each bucket, in the order of encode_latents.BUCKETS)
PHASES = [(0.3, (1, 0, 0, 0)), (1.0, (0.1, 0.7, 0.1, 0.1))]
# Prompts a step, and noises for each: words cost as much as a small picture does.
BATCHES = {(128, 128): (32, 2)}
BATCH = (32, 1)
EMPTY_SHARE = 0.1
EMA_DECAY = 0.998


class Words:
    """Both tokenizers, which differ in the padding."""

    def __init__(self):
        from transformers import CLIPTokenizer

        self.vocabulary, self.merges = tokenizer.train()
        folder = os.path.join(os.path.dirname(os.path.abspath(__file__)), "__pycache__", "words")
        self.tokenizers = []
        for name, pad in (("tokenizer", "<|endoftext|>"), ("tokenizer_2", "!")):
            tokenizer.write(os.path.join(folder, name), self.vocabulary, self.merges, pad)
            self.tokenizers.append(CLIPTokenizer.from_pretrained(os.path.join(folder, name)))

    def encode(self, captions):
        """Two (count, 77) tensors of ids."""
        return [one(captions, padding="max_length", max_length=77, truncation=True,
                    return_tensors="pt").input_ids for one in self.tokenizers]


class Networks(torch.nn.Module):
    """Noise as predicted from noisy latents and token ids: what StableDiffusionXLPipeline does."""

    def __init__(self, vocabulary_size):
        super().__init__()
        self.text_encoder, self.text_encoder_2 = text_encoders(vocabulary_size)
        self.unet = unet()
        # The fused attention's backward pass costs half of a step at these sizes.
        self.unet.set_attn_processor(AttnProcessor())
        self.text_encoder.set_attn_implementation("eager")
        self.text_encoder_2.set_attn_implementation("eager")

    def forward(self, noisy, timesteps, first_ids, second_ids, kept, time_ids):
        """`kept` is 0 where the prompt is empty, which SDXL reads as zeros.

        There may be several noisy latents in a row for each prompt.
        """
        first = self.text_encoder(first_ids, output_hidden_states=True)
        second = self.text_encoder_2(second_ids, output_hidden_states=True)
        context = torch.cat([first.hidden_states[-2], second.hidden_states[-2]], -1)
        repeated = len(noisy) // len(first_ids)
        context = (context * kept[:, None, None]).repeat_interleave(repeated, 0)
        pooled = (second.text_embeds * kept[:, None]).repeat_interleave(repeated, 0)
        added = {"text_embeds": pooled, "time_ids": time_ids}
        return self.unet(noisy, timesteps, context, added_cond_kwargs=added,
                         return_dict=False)[0]


def weights_of_timesteps():
    """What an error at each timestep counts: min-SNR (5) times the v prediction's 1 + 1/SNR.

    The second factor (at most 8) is for composition: where noise is strong, the error of a wrong
    colour is a small share of it. Half of a weight goes into how often a timestep is drawn.
    """
    kept = alphas_cumprod()
    ratio = kept / (1 - kept)
    weights = (5 / ratio).clamp(max=1) * (1 + 1 / ratio).clamp(max=8)
    root = weights.sqrt()
    return root / root.sum(), root / root.mean()


def share_of(bucket, count, repeated):
    """`count` examples of a bucket, each `repeated` times in a row with a noise of its own."""
    chosen = torch.randint(0, len(bucket["latents"]), (count,))
    width, height = bucket["size"]
    return {
        "latents": bucket["latents"][chosen].float().repeat_interleave(repeated, 0),
        "ids": [ids[chosen].long() for ids in bucket["ids"]],
        "kept": (torch.rand(count) >= EMPTY_SHARE).float(),
        "time_ids": torch.tensor([[height, width, 0, 0, height, width]]).float().repeat(
            count * repeated, 1),
    }


def bucket_for(buckets, share):
    weights = next(weights for until, weights in PHASES if share < until or until == 1.0)
    return buckets[torch.multinomial(torch.tensor(weights).float(), 1).item()]


def load_buckets(out, words):
    buckets = torch.load(os.path.join(out, "latents.pt"), weights_only=False)["buckets"]
    for bucket in buckets:
        bucket["ids"] = [ids.short() for ids in words.encode(bucket["captions"])]
    return buckets


class Loss:
    def __init__(self):
        self.density, self.weights = weights_of_timesteps()
        self.kept = alphas_cumprod()

    def __call__(self, networks, share):
        latents = share["latents"]
        timesteps = torch.multinomial(self.density, len(latents), replacement=True)
        signal = self.kept[timesteps].view(-1, 1, 1, 1)
        noise = torch.randn_like(latents)
        noisy = signal.sqrt() * latents + (1 - signal).sqrt() * noise
        with torch.autocast("cpu", torch.bfloat16):
            made = networks(noisy, timesteps, *share["ids"], share["kept"], share["time_ids"])
        errors = (made.float() - noise).square().mean((1, 2, 3))
        return (errors * self.weights[timesteps]).mean()


def train(pace, threads):
    torch.manual_seed(3)
    words = Words()
    replicas = Replicas(Networks(len(words.vocabulary)), threads)
    training = Training(pace, replicas, replicas.module, "networks", EMA_DECAY)
    training.resume(seed=4)
    buckets = load_buckets(pace.out, words)

    def draw():
        bucket = bucket_for(buckets, pace.spent / pace.minutes)
        count, repeated = BATCHES.get(bucket["size"], BATCH)
        shares = [share_of(bucket, count // threads, repeated) for _ in range(threads)]
        return bucket["size"], shares

    training.run(Loss(), draw)
