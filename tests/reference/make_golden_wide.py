"""Makes tests/fixtures/wide: a second SDXL-shaped model, every size different, and its outputs.

The weights come from formula_weights.py into a temporary folder; only configs, key names, shapes
and checksums are kept. Run from the repository root: python tests/reference/make_golden_wide.py
"""

import json
import os
import shutil
import tempfile

from diffusers import AutoencoderKL, UNet2DConditionModel
from formula_weights import write_file, write_index
from harness import (
    decode,
    forward,
    forward_tensors,
    load_pipeline,
    relative_l2,
    run,
    save,
    text_tensors,
    token_ids,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

WIDE = "tests/fixtures/wide"
TOKENIZERS = "tests/fixtures/golden/model"
WIDTH, HEIGHT = 192, 320  # pixels
PROMPT = "a drawing of a small green tree left of a yellow star at sunset"
NEGATIVE = "dark, noisy"

# Stored type, file stem and number of shards: together every way a folder may store its weights.
STORAGE = {
    "text_encoder": ("BF16", "model", 1),
    "text_encoder_2": ("F16", "model.fp16", 1),
    "unet": ("F32", "diffusion_pytorch_model", 3),
    "vae": ("F32", "diffusion_pytorch_model", 1),
}


def read_json(path):
    with open(path) as file:
        return json.load(file)


def key_shapes(component):
    """Key names and shapes of a component, as its file stores them."""
    config = read_json(f"{WIDE}/model/{component}/config.json")
    if component == "text_encoder":
        model = CLIPTextModel(CLIPTextConfig(**config))
    elif component == "text_encoder_2":
        model = CLIPTextModelWithProjection(CLIPTextConfig(**config))
    else:
        model = {"unet": UNet2DConditionModel, "vae": AutoencoderKL}[component].from_config(config)
    shapes = {
        name: list(tensor.shape)
        for name, tensor in model.state_dict().items()
        if "position_ids" not in name
    }
    if component == "text_encoder":
        # Published SDXL folders carry this prefix; transformers 5 saves the encoder without it.
        shapes = {
            f"text_model.{name.removeprefix('text_model.')}": shape
            for name, shape in shapes.items()
        }
    return dict(sorted(shapes.items()))


def write_model(folder):
    """Writes the whole model folder and returns the weights list that lets others write it."""
    shutil.copytree(f"{WIDE}/model", folder, dirs_exist_ok=True)
    for name in ["tokenizer", "tokenizer_2"]:
        shutil.copytree(f"{TOKENIZERS}/{name}", f"{folder}/{name}", dirs_exist_ok=True)
    files = []
    for component, (dtype, stem, shard_count) in STORAGE.items():
        names, shards, data_bytes = list((shapes := key_shapes(component)).items()), {}, 0
        for shard in range(shard_count):
            suffix = f"-{shard + 1:05}-of-{shard_count:05}" if shard_count > 1 else ""
            part = dict(
                names[shard * len(names) // shard_count : (shard + 1) * len(names) // shard_count]
            )
            shards[file := f"{stem}{suffix}.safetensors"] = part
            sha256, size = write_file(f"{folder}/{component}/{file}", component, dtype, part)
            files.append(
                {"path": f"{component}/{file}", "dtype": dtype, "sha256": sha256, "shapes": part}
            )
            data_bytes += size
        if shard_count > 1:
            write_index(f"{folder}/{component}", f"{stem}.safetensors", shards, data_bytes)
        print(f"{component}: {len(shapes)} keys, {data_bytes} bytes")
    return files


def write_weights_list(files):
    """weights.json, one tensor per line."""
    with open(f"{WIDE}/weights.json", "w") as out:
        out.write('{"tokenizers": "../golden/model", "files": [')
        for at, file in enumerate(files):
            lines = ",\n".join(
                f"  {json.dumps(name)}: {json.dumps(shape)}"
                for name, shape in file["shapes"].items()
            )
            head = {key: file[key] for key in ["path", "dtype", "sha256"]}
            out.write(
                ("," if at else "")
                + "\n "
                + json.dumps(head)[:-1]
                + f', "shapes": {{\n{lines}\n }}}}'
            )
        out.write("\n]}\n")


def run_specs():
    base = {"steps": 8, "guidance": 5.0, "seed": 7, "prompt": PROMPT, "negative": NEGATIVE}
    base |= {"height": HEIGHT, "width": WIDTH, "config": {}}
    euler = base | {"name": "euler", "scheduler": "EulerDiscreteScheduler"}
    ddim_config = {"clip_sample": False, "set_alpha_to_one": False}
    return [
        euler,
        base | {"name": "euler_a", "scheduler": "EulerAncestralDiscreteScheduler"},
        base | {"name": "ddim", "scheduler": "DDIMScheduler", "config": ddim_config},
        euler | {"name": "euler_no_guidance", "guidance": 1.0},
        euler | {"name": "euler_zero_negative", "negative": None},
        euler | {"name": "euler_empty_negative", "negative": ""},
    ]


def print_f64_distance(pipeline, inputs, outputs):
    """Error of the f32 reference against f64: a lower bound for any tolerance."""
    pipeline.unet.double(), pipeline.vae.double()
    double = {name: tensor.double() for name, tensor in inputs.items()}
    for name, exact in forward(pipeline, double, WIDTH, HEIGHT).items():
        print(f"f32 to f64: {name} {relative_l2(outputs[name], exact):.1e}")


def main():
    with tempfile.TemporaryDirectory() as folder:
        write_weights_list(write_model(folder))
        pipeline = load_pipeline(folder, {"text_encoder_2": "fp16"})
    inputs, outputs = forward_tensors(pipeline, "wide", WIDTH, HEIGHT)
    tensors, specs = text_tensors(pipeline, PROMPT, NEGATIVE) | outputs, run_specs()
    for spec in specs:
        tensors |= run(pipeline, spec)
    tensors["run.euler.image"] = decode(pipeline, tensors["run.euler.latents"])
    for name, tensor in tensors.items():
        if tensor.numel() > 1:
            print(f"{name} {tuple(tensor.shape)} std {float(tensor.std()):.3g}")
    prompts = [PROMPT, NEGATIVE, ""]
    notes = {
        "runs": specs,
        "tokens": [
            dict(zip(["prompt", "ids", "ids_2"], [prompt, *token_ids(pipeline, prompt)]))
            for prompt in prompts
        ],
        "note": "as ../golden/golden.json; formula weights, rounded to the stored type, run in f32",
    }
    save(f"{WIDE}/golden", tensors, notes)
    print_f64_distance(pipeline, inputs, outputs)


main()
