"""Reproduces golden.safetensors, then adds runs without guidance and without a negative prompt.

Run from the repository root: python tests/reference/make_golden_extra.py
"""

import json

from harness import decode, embed, encode_mean, load_pipeline, relative_l2, run, save
from safetensors.torch import load_file

GOLDEN = "tests/fixtures/golden"
LONG_PROMPT = "a photo of a red circle above a blue square, " * 12


def check_reproduction(pipeline, golden, runs):
    """Prints how far this machine's PyTorch is from the recorded outputs, worst last."""
    ours = {}
    names = [
        "text.prompt_embeds",
        "text.negative_prompt_embeds",
        "text.pooled",
        "text.negative_pooled",
    ]
    ours |= zip(names, embed(pipeline, runs["euler"]["prompt"], runs["euler"]["negative"]))
    ours["unet.out"] = pipeline.unet(
        golden["unet.sample"],
        golden["unet.timestep"],
        encoder_hidden_states=golden["unet.encoder_hidden_states"],
        added_cond_kwargs={
            "text_embeds": golden["unet.text_embeds"],
            "time_ids": golden["unet.time_ids"],
        },
    ).sample
    ours["vae.image"] = decode(pipeline, golden["vae.latent"])
    ours["vae.encode_mean"] = encode_mean(pipeline, golden["vae.encode_image"])
    for name in ["euler", "euler_a", "ddim", "euler_karras", "euler_trailing"]:
        ours |= run(pipeline, runs[name])
    ours["run.euler.image"] = decode(pipeline, ours["run.euler.latents"])
    differences = {name: relative_l2(tensor, golden[name]) for name, tensor in ours.items()}
    for name, difference in sorted(differences.items(), key=lambda item: item[1]):
        print(f"{difference:.2e} {name}")
    assert max(differences.values()) < 1e-5, "this machine does not reproduce the recorded outputs"


def main():
    pipeline = load_pipeline(f"{GOLDEN}/model")
    golden = load_file(f"{GOLDEN}/golden.safetensors")
    with open(f"{GOLDEN}/golden.json") as file:
        runs = {entry["name"]: entry for entry in json.load(file)["runs"]}
    check_reproduction(pipeline, golden, runs)

    extra = [
        runs["euler"] | {"name": "euler_no_guidance", "guidance": 1.0},
        runs["euler"] | {"name": "euler_zero_negative", "negative": None},
        runs["euler"] | {"name": "euler_empty_negative", "negative": ""},
        runs["euler_a"] | {"name": "euler_a_no_guidance", "guidance": 1.0},
    ]
    tensors = {}
    for spec in extra:
        tensors |= run(pipeline, spec)
    positive, _, pooled, _ = embed(pipeline, LONG_PROMPT, None)
    tensors["text.long.prompt_embeds"], tensors["text.long.pooled"] = positive, pooled
    positive, _, pooled, _ = embed(pipeline, "", None)
    tensors["text.empty.prompt_embeds"], tensors["text.empty.pooled"] = positive, pooled
    notes = {
        "runs": extra,
        "prompts": {"long": LONG_PROMPT, "empty": ""},
        "note": "as golden.json; a negative of null means zeros (force_zeros_for_empty_prompt)",
    }
    save(f"{GOLDEN}/extra", tensors, notes)


main()
