"""Records images of the golden model with adapters (LoRA and kin) of every format.

Each file is a formula of its keys (formula_weights.py), listed with shapes in adapters.json;
tests/support/reference-adapters.ts writes the same bytes. The weights are merged here by plain
PyTorch, from what the maker of each tensor says of it, not from its key. Where diffusers and peft
read the format, their load_lora_weights and fuse_lora must give the same weights: the script fails
otherwise.

The golden model must exist: `bun run fixtures`. Needs peft.
Run from the repository root: python tests/reference/make_adapters.py
"""

import contextlib
import json
import math
import os
import tempfile

import numpy as np
import torch
from formula_weights import seed_of, uniform
from harness import load_pipeline, relative_l2, run, save
from safetensors.torch import save_file

GOLDEN = "tests/fixtures/golden"
OUT = "tests/fixtures/adapters"
RANK = 4
#: Images of 8 x 8 latents, which are recorded whole.
SIDE = 64
DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def values_of(file, key, shape, amplitude, offset):
    """offset + amplitude * u, u uniform in [-1, 1), in f32; a single number is the offset."""
    u = uniform(seed_of(f"adapters/{file}/{key}"), math.prod(shape))
    values = np.float32(offset) + u * np.float32(amplitude)
    return torch.from_numpy(values.astype(np.float32)).reshape(shape)


class File:
    """The tensors of an adapter file, and the changes that they mean."""

    def __init__(self, name, dtype="F32", metadata=None):
        self.name, self.dtype, self.metadata = name, dtype, metadata or {}
        self.entries, self.tensors, self.changes = {}, {}, []

    def tensor(self, key, shape, amplitude, offset=0.0):
        """Adds a tensor; gives it as f32, rounded as the file stores it."""
        value = values_of(self.name, key, shape, amplitude, offset)
        stored = value.to(DTYPES[self.dtype])
        self.entries[key] = [amplitude, offset, *shape]
        self.tensors[key] = stored
        return stored.float()

    def number(self, key, value):
        return float(self.tensor(key, [], 0.0, value))

    def change(self, component, key, change):
        """`change` gives the new weight for the old one at scale 1, or "delta"."""
        self.changes.append((component, key, change))

    def add(self, component, key, delta):
        self.change(component, key, lambda weight: weight + delta.reshape(weight.shape))


#: Modules (diffusers' path, original path) of the golden UNet with linear layers.
LINEAR = [
    ("down_blocks.1.attentions.0.proj_in", "input_blocks.4.1.proj_in"),
    (
        "down_blocks.2.attentions.1.transformer_blocks.1.attn1.to_q",
        "input_blocks.8.1.transformer_blocks.1.attn1.to_q",
    ),
    (
        "mid_block.attentions.0.transformer_blocks.0.attn2.to_k",
        "middle_block.1.transformer_blocks.0.attn2.to_k",
    ),
    (
        "up_blocks.0.attentions.2.transformer_blocks.0.attn1.to_out.0",
        "output_blocks.2.1.transformer_blocks.0.attn1.to_out.0",
    ),
    (
        "up_blocks.1.attentions.0.transformer_blocks.0.ff.net.0.proj",
        "output_blocks.3.1.transformer_blocks.0.ff.net.0.proj",
    ),
]
CONVOLUTIONS = [
    ("conv_in", "input_blocks.0.0"),
    ("down_blocks.0.downsamplers.0.conv", "input_blocks.3.0.op"),
    ("down_blocks.1.resnets.0.conv_shortcut", "input_blocks.4.0.skip_connection"),
    ("mid_block.resnets.1.conv1", "middle_block.2.in_layers.2"),
    ("up_blocks.1.upsamplers.0.conv", "output_blocks.5.2.conv"),
    ("up_blocks.2.resnets.2.conv2", "output_blocks.8.0.out_layers.3"),
    ("conv_out", "out.2"),
]
EMBEDDINGS = [
    ("time_embedding.linear_2", "time_embed.2"),
    ("add_embedding.linear_1", "label_emb.0.0"),
    ("mid_block.resnets.0.time_emb_proj", "middle_block.0.emb_layers.1"),
]
TEXT = [
    "text_model.encoder.layers.0.self_attn.q_proj",
    "text_model.encoder.layers.1.self_attn.out_proj",
    "text_model.encoder.layers.0.mlp.fc1",
]


class Maker:
    def __init__(self, weights):
        self.weights = weights

    def shape(self, component, module):
        return list(self.weights[component][f"{module}.weight"].shape)

    def lora(self, file, component, module, up, down, scale, rank=RANK, mid=None, wrap=None):
        """A LoRA by the keys of its tensors; `scale` is what stands before the product."""
        out, inner, *window = self.shape(component, module)
        ones = [1] * len(window)
        if mid is None:
            u = file.tensor(up, [out, rank, *ones], 0.8)
            d = file.tensor(down, [rank, inner, *window], self.size(component, module, rank))
            delta = u.reshape(out, rank) @ d.reshape(rank, -1)
        else:
            u = file.tensor(up, [out, rank, 1, 1], 0.5)
            m = file.tensor(mid, [rank, rank, *window], 0.5)
            d = file.tensor(down, [rank, inner, 1, 1], self.size(component, module, rank))
            delta = torch.einsum(
                "mnkl,om,ni->oikl", m, u.reshape(out, rank), d.reshape(rank, inner)
            )
        delta = scale * delta.reshape(self.shape(component, module))
        key = f"{module}.weight"
        if wrap is None:
            file.add(component, key, delta)
        else:
            file.change(component, key, wrap(delta))

    def size(self, component, module, rank):
        """An amplitude that makes the product about a third of the weight."""
        _, *inner = self.shape(component, module)
        return round(2.5 / math.sqrt(math.prod(inner) * rank), 4)


def joined(path):
    return path.replace(".", "_")


def kohya(make, name, dtype, original, with_alpha):
    """kohya's names, UNet by the original or by diffusers' paths, and both text encoders."""
    file = File(name, dtype, {"ss_network_dim": str(RANK)} if original else None)
    modules = [*LINEAR, *EMBEDDINGS]
    for diffusers, sgm in modules:
        base = f"lora_unet_{joined(sgm if original else diffusers)}"
        # Without an alpha the scale is 1.
        scale = file.number(f"{base}.alpha", 6.0) / RANK if with_alpha else 1.0
        make.lora(file, "unet", diffusers, f"{base}.lora_up.weight", f"{base}.lora_down.weight", scale)
    return file


def kohya_text(make):
    file = File("kohya_text", "F16")
    for number, component in (("1", "text_encoder"), ("2", "text_encoder_2")):
        for module in TEXT:
            base = f"lora_te{number}_{joined(module)}"
            scale = file.number(f"{base}.alpha", 8.0) / RANK
            make.lora(
                file, component, module, f"{base}.lora_up.weight", f"{base}.lora_down.weight", scale
            )
    return file


def peft(make):
    """Newer diffusers: alphas are in the header."""
    odd = LINEAR[0][0]
    notes = {
        "unet.r": RANK,
        "unet.lora_alpha": 6,
        "unet.rank_pattern": {odd: 2},
        "unet.alpha_pattern": {odd: 1},
        "unet.target_modules": [module for module, _ in LINEAR],
        "text_encoder_2.r": RANK,
        "text_encoder_2.lora_alpha": 8,
        "text_encoder_2.use_rslora": True,
        "text_encoder_2.target_modules": TEXT,
    }
    text = json.dumps(notes, sort_keys=True)
    file = File("peft", "F32", {"format": "pt", "lora_adapter_metadata": text})
    for module, _ in LINEAR:
        base = f"unet.{module}"
        rank, alpha = (2, 1) if module == odd else (RANK, 6)
        keys = f"{base}.lora_B.weight", f"{base}.lora_A.weight"
        make.lora(file, "unet", module, *keys, alpha / rank, rank)
    for module in TEXT:
        base = f"text_encoder_2.{module}"
        keys = f"{base}.lora_B.weight", f"{base}.lora_A.weight"
        make.lora(file, "text_encoder_2", module, *keys, 8 / math.sqrt(RANK))
    return file


def old_diffusers(make):
    """Attention processors, and linear layers of text encoders; no alphas."""
    file = File("old_diffusers", "F32")
    for module, _ in LINEAR:
        if ".attn" not in module:
            continue
        head, _, tail = module.rpartition(".to_")
        base = f"unet.{head}.processor.to_{tail.replace('out.0', 'out')}_lora"
        make.lora(file, "unet", module, f"{base}.up.weight", f"{base}.down.weight", 1.0)
    for module in TEXT[:2]:
        base = f"text_encoder.{module}.lora_linear_layer"
        make.lora(file, "text_encoder", module, f"{base}.up.weight", f"{base}.down.weight", 1.0)
    return file


def locon(make):
    """Convolutions, two of them with a core (Tucker)."""
    file = File("locon", "F16")
    for index, (diffusers, sgm) in enumerate(CONVOLUTIONS):
        base = f"lora_unet_{joined(sgm)}"
        scale = file.number(f"{base}.alpha", 2.0) / RANK
        mid = f"{base}.lora_mid.weight" if index in (3, 5) else None
        keys = f"{base}.lora_up.weight", f"{base}.lora_down.weight"
        make.lora(file, "unet", diffusers, *keys, scale, mid=mid)
    return file


def loha(make):
    file = File("loha", "F32")
    for index, (diffusers, sgm) in enumerate([*LINEAR[:3], *CONVOLUTIONS[3:5]]):
        base = f"lora_unet_{joined(sgm)}"
        out, *inner = make.shape("unet", diffusers)
        scale = file.number(f"{base}.alpha", 6.0) / RANK
        halves = []
        for number in "12":
            if len(inner) == 3 and index == 3:
                core = file.tensor(f"{base}.hada_t{number}", [RANK, RANK, *inner[1:]], 0.7)
                a = file.tensor(f"{base}.hada_w{number}_a", [RANK, out], 0.6)
                b = file.tensor(f"{base}.hada_w{number}_b", [RANK, inner[0]], 0.6)
                halves.append(torch.einsum("ijkl,jr,ip->prkl", core, b, a))
            else:
                a = file.tensor(f"{base}.hada_w{number}_a", [out, RANK], 0.6)
                b = file.tensor(f"{base}.hada_w{number}_b", [RANK, math.prod(inner)], 0.6)
                halves.append((a @ b).reshape(out, *inner))
        file.add("unet", f"{diffusers}.weight", scale * halves[0] * halves[1])
    return file


def lokr(make):
    """Both factors whole (alpha is not used), one or both as products, and with a core."""
    file = File("lokr", "BF16")
    modules = [LINEAR[0], LINEAR[1], LINEAR[2], CONVOLUTIONS[3], CONVOLUTIONS[5]]
    for index, (diffusers, _) in enumerate(modules):
        base = f"lycoris_{joined(diffusers)}"
        out, inner, *window = make.shape("unet", diffusers)
        left, right = [4, 2], [out // 4, inner // 2]
        alpha = file.number(f"{base}.alpha", 3.0)
        rank = None
        if index == 2:
            a = file.tensor(f"{base}.lokr_w1_a", [left[0], 2], 0.6)
            w1 = a @ file.tensor(f"{base}.lokr_w1_b", [2, left[1]], 0.6)
            rank = 2
        else:
            w1 = file.tensor(f"{base}.lokr_w1", left, 0.5)
        if index == 0 or index == 4:
            w2 = file.tensor(f"{base}.lokr_w2", [*right, *window], 0.1)
        elif index == 3:
            core = file.tensor(f"{base}.lokr_t2", [RANK, RANK, *window], 0.5)
            a = file.tensor(f"{base}.lokr_w2_a", [RANK, right[0]], 0.3)
            b = file.tensor(f"{base}.lokr_w2_b", [RANK, right[1]], 0.3)
            w2, rank = torch.einsum("ijkl,jr,ip->prkl", core, b, a), RANK
        else:
            a = file.tensor(f"{base}.lokr_w2_a", [right[0], RANK], 0.3)
            b = file.tensor(f"{base}.lokr_w2_b", [RANK, right[1]], 0.3)
            w2, rank = a @ b, RANK
        scale = 1.0 if rank is None else alpha / rank
        if w2.ndim == 4:
            w1 = w1.reshape(*left, 1, 1)
        file.add("unet", f"{diffusers}.weight", scale * torch.kron(w1, w2.contiguous()))
    return file


def decomposed(magnitude, axis, of_sum):
    """DoRA: rows (axis 0) or columns (1) get a norm, over that of the weight or of the sum."""

    def wrap(delta):
        def change(weight):
            merged = weight + delta
            measured = merged if of_sum else weight
            others = [i for i in range(weight.ndim) if i != axis]
            norm = measured.double().square().sum(dim=others, keepdim=True).sqrt()
            return (merged * (magnitude.double().reshape(norm.shape) / norm)).float()

        return change

    return wrap


def dora(make):
    """kohya and LyCORIS: rows over the weight's own norm, and columns over the sum's."""
    file = File("dora", "F32")
    for index, (diffusers, sgm) in enumerate([*LINEAR[:4], CONVOLUTIONS[3]]):
        base = f"lora_unet_{joined(sgm)}"
        out, inner, *window = make.shape("unet", diffusers)
        scale = file.number(f"{base}.alpha", 6.0) / RANK
        of_columns = index == 1
        ones = [1] * len(window)
        shape = [1, inner, *ones] if of_columns else [out, 1, *ones]
        magnitude = file.tensor(f"{base}.dora_scale", shape, 0.1, 0.6)
        wrap = decomposed(magnitude, int(of_columns), of_columns)
        keys = f"{base}.lora_up.weight", f"{base}.lora_down.weight"
        make.lora(file, "unet", diffusers, *keys, scale, wrap=wrap)
    return file


def dora_peft(make):
    file = File("dora_peft", "F32")
    for module, _ in LINEAR[:4]:
        base = f"base_model.model.{module}"
        out, _ = make.shape("unet", module)
        magnitude = file.tensor(f"{base}.lora_magnitude_vector", [out], 0.1, 0.6)
        keys = f"{base}.lora_B.weight", f"{base}.lora_A.weight"
        make.lora(file, "unet", module, *keys, 1.0, wrap=decomposed(magnitude, 0, True))
    return file


def difference(make):
    """Whole differences of weights, biases and norms, by generic names."""
    file = File("difference", "F16")
    for module, sgm, endings in [
        (*CONVOLUTIONS[3], ("diff", "diff_b")),
        (*LINEAR[0], ("diff", "diff_b")),
        ("mid_block.resnets.1.norm1", "middle_block.2.in_layers.0", ("w_norm", "b_norm")),
        ("conv_norm_out", "out.0", ("w_norm", "b_norm")),
    ]:
        for ending, part in zip(endings, ("weight", "bias")):
            shape = list(make.weights["unet"][f"{module}.{part}"].shape)
            value = file.tensor(f"diffusion_model.{sgm}.{ending}", shape, 0.05)
            file.add("unet", f"{module}.{part}", value)
    return file


def generic(make):
    """ComfyUI's names of all three networks, and the projection of the second text encoder."""
    file = File("generic", "BF16")
    for module, sgm in LINEAR[1:4]:
        base = f"diffusion_model.{sgm}"
        scale = file.number(f"{base}.alpha", 6.0) / RANK
        keys = f"{base}.lora_B.weight", f"{base}.lora_A.weight"
        make.lora(file, "unet", module, *keys, scale)
    for prefix, component in (
        ("text_encoders.clip_l.transformer", "text_encoder"),
        ("text_encoders.clip_g.transformer", "text_encoder_2"),
    ):
        base = f"{prefix}.{TEXT[2]}"
        keys = f"{base}.lora_up.weight", f"{base}.lora_down.weight"
        make.lora(file, component, TEXT[2], *keys, 1.0)
    base = "lora_te2_text_projection"
    keys = f"{base}.lora_up.weight", f"{base}.lora_down.weight"
    make.lora(file, "text_encoder_2", "text_projection", *keys, 1.0)
    return file


def files_of(make):
    return [
        kohya(make, "kohya_sgm", "F16", original=True, with_alpha=True),
        kohya(make, "kohya_diffusers", "F32", original=False, with_alpha=False),
        kohya_text(make),
        peft(make),
        old_diffusers(make),
        locon(make),
        loha(make),
        lokr(make),
        dora(make),
        dora_peft(make),
        difference(make),
        generic(make),
    ]


def state_of(pipeline):
    """The weights by component, with keys as in files: transformers' own prefix is put back."""
    states = {}
    for component in ("unet", "text_encoder", "text_encoder_2"):
        state = getattr(pipeline, component).state_dict()
        states[component] = {key_of(component, key): value for key, value in state.items()}
    return states


def key_of(component, key):
    if component == "unet" or key.startswith(("text_model.", "text_projection.")):
        return key
    return f"text_model.{key}"


@contextlib.contextmanager
def merged(pipeline, applied, rounded=True):
    """The pipeline with (file, scale) pairs merged into its weights, one after the other.

    The sums are f32. Where `rounded`, matrices are rounded once to f16, which the model's file has:
    as if PyTorch had saved the merged model.
    """
    states = state_of(pipeline)
    before = {}
    for file, scale in applied:
        for component, key, change in file.changes:
            weight = states[component][key]
            before.setdefault((component, key), weight.clone())
            weight.copy_(weight + scale * (change(weight.clone()) - weight))
    if rounded:
        for component, key in before:
            weight = states[component][key]
            if weight.ndim > 1:
                weight.copy_(weight.half())
    yield states
    for (component, key), weight in before.items():
        states[component][key].copy_(weight)


#: What diffusers and peft read by themselves; of text encoders nothing since transformers 5 has
#: renamed their modules.
CHECKED = ["kohya_sgm", "kohya_diffusers", "peft", "old_diffusers"]
#: diffusers makes add.embedding.linear of the kohya name of this one, and ignores it.
MISREAD = ("kohya_diffusers", "add_embedding.linear_1.weight")


def check_by_peft(pipeline, file, scale):
    """The weights that diffusers fuses, against ours; the largest relative difference."""
    with merged(pipeline, [(file, scale)], rounded=False) as states:
        ours = {
            (component, key): states[component][key].clone()
            for component, key, _ in file.changes
            if component == "unet"
        }
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/{file.name}.safetensors"
        tensors = {key: value for key, value in file.tensors.items() if "unet" in key}
        save_file(tensors, path, metadata=file.metadata or None)
        pipeline.load_lora_weights(path)
        pipeline.fuse_lora(lora_scale=scale)
        pipeline.unload_lora_weights()
        theirs = state_of(pipeline)
    distances = [
        relative_l2(theirs[component][key], weight)
        for (component, key), weight in ours.items()
        if (file.name, key) != MISREAD
    ]
    return max(distances)


def main():
    pipeline = load_pipeline(f"{GOLDEN}/model")
    with open(f"{GOLDEN}/golden.json") as source:
        euler = next(spec for spec in json.load(source)["runs"] if spec["name"] == "euler")
    spec = euler | {"width": SIDE, "height": SIDE}
    weights = {name: dict(state) for name, state in state_of(pipeline).items()}
    files = {file.name: file for file in files_of(Maker(weights))}
    runs = [[[name, scale]] for name in files for scale in (0.8, -0.5)]
    runs += [
        [["kohya_sgm", 0.8], ["kohya_text", -0.5]],
        [["locon", 0.8], ["dora", -0.5]],
    ]
    plain = run(pipeline, spec | {"name": "plain"})["run.plain.latents"]
    tensors = {"plain": plain}
    for applied in runs:
        name = "+".join(f"{file}:{scale}" for file, scale in applied)
        pairs = [(files[file], scale) for file, scale in applied]
        with merged(pipeline, pairs, rounded=False):
            exact = run(pipeline, spec | {"name": "run"})["run.run.latents"]
        with merged(pipeline, pairs):
            latents = run(pipeline, spec | {"name": "run"})["run.run.latents"]
        moved, rounding = relative_l2(latents, plain), relative_l2(latents, exact)
        print(f"{name}: {moved:.3f} away from no adapter, {rounding:.1e} by rounding")
        tensors[name] = latents
    again = run(pipeline, spec | {"name": "plain"})["run.plain.latents"]
    assert torch.equal(again, plain), "the weights were not restored"
    os.makedirs(OUT, exist_ok=True)
    listed = {
        file.name: {"dtype": file.dtype, "metadata": file.metadata, "tensors": file.entries}
        for file in files.values()
    }
    save(f"{OUT}/images", tensors, {"run": spec, "applied": runs})
    with open(f"{OUT}/files.json", "w") as target:
        lines = [f" {json.dumps(name)}: {json.dumps(entry)}" for name, entry in listed.items()]
        target.write("{\n" + ",\n".join(lines) + "\n}\n")
    for name in CHECKED:
        for scale in (0.8, -0.5):
            distance = check_by_peft(load_pipeline(f"{GOLDEN}/model"), files[name], scale)
            print(f"{name} at {scale}: {distance:.1e} from diffusers' weights")
            assert distance < 1e-5


main()
