"""The peers of `bun run bench cpu` and `cpu-peers`: the same operations and models, one at a time.

    cpu_peer.py        reads a case of JSON per line, answers with milliseconds per line

The first line of output lists the versions. Operands are made once and kept while the same case is
repeated. PyTorch is eager; a UNet also runs as "runtime": "compiled" (torch.compile with freezing)
and "onnxruntime" ("onnx": a file of make_onnx.py). Models are read from a diffusers folder; they
need diffusers on PYTHONPATH.
"""

import importlib.metadata
import importlib.util
import json
import os
import sys
import time

import torch
import torch.nn.functional as F
from safetensors.torch import load_file

DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16}


def rand(*shape):
    return torch.rand(shape) * 2 - 1


def images(case):
    """NCHW and contiguous, as diffusers' models have them."""
    return rand(case.get("batch", 1), case["in"], case.get("rows", 1), case["width"])


def sequence(case):
    return rand(case.get("batch", 1), case.get("rows", 1) * case["width"], case["in"])


def make_linear(case, dtype):
    x = sequence(case).to(dtype)
    weight, bias = rand(case["out"], case["in"]).to(dtype), rand(case["out"]).to(dtype)
    return lambda: F.linear(x, weight, bias)


def make_conv2d(case, dtype):
    x = images(case).to(dtype)
    weight, bias = rand(case["out"], case["in"], 3, 3).to(dtype), rand(case["out"]).to(dtype)
    stride = case.get("stride", 1)
    if case.get("upsample"):
        return lambda: F.conv2d(
            F.interpolate(x, scale_factor=2.0, mode="nearest"), weight, bias, padding=1
        )
    return lambda: F.conv2d(x, weight, bias, stride=stride, padding=1)


def make_attention(case, dtype):
    batch, heads = case.get("batch", 1), case["heads"]
    size = case["in"] // heads

    def split(tokens):
        return rand(batch, tokens, heads, size).to(dtype).transpose(1, 2)

    q = split(case.get("rows", 1) * case["width"])
    k, v = split(case["keys"]), split(case["keys"])
    return lambda: F.scaled_dot_product_attention(q, k, v).transpose(1, 2).contiguous()


def make_group_norm(case, dtype):
    x = images(case).to(dtype)
    weight, bias = rand(case["in"]).to(dtype), rand(case["in"]).to(dtype)
    return lambda: F.silu(F.group_norm(x, 32, weight, bias, 1e-5))


def make_layer_norm(case, dtype):
    x = sequence(case).to(dtype)
    weight, bias = rand(case["in"]).to(dtype), rand(case["in"]).to(dtype)
    return lambda: F.layer_norm(x, (case["in"],), weight, bias, 1e-5)


def make_geglu(case, dtype):
    x = sequence(case).to(dtype)

    def geglu():
        value, gate = x.chunk(2, dim=-1)
        return value * F.gelu(gate)

    return geglu


def make_add(case, dtype):
    x, y = sequence(case).to(dtype), sequence(case).to(dtype)
    return lambda: x + y


def make_concat(case, dtype):
    x = images(case).to(dtype)
    y = images(case | {"in": case["out"]}).to(dtype)
    return lambda: torch.cat([x, y], dim=1)


def make_copy(case, dtype):
    x = sequence(case).to(dtype)
    return lambda: x.clone()


def load(make, folder, file, dtype):
    """A model with the folder's weights, without sampling initial values first."""
    with torch.device("meta"):
        model = make()
    state = load_file(f"{folder}/{file}.safetensors")
    state = {name: value.to(dtype) for name, value in state.items()}
    model.load_state_dict(state, assign=True, strict=False)
    return model.eval()


def make_onnx_unet(case):
    import numpy
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = os.cpu_count()
    # Its threads spin after a run, and would take the cores of the other program.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    session = onnxruntime.InferenceSession(case["onnx"], options)
    inputs = {
        x.name: numpy.array([601], numpy.float32) if x.name == "timestep" else rand(*x.shape).numpy()
        for x in session.get_inputs()
    }
    return lambda: session.run(None, inputs)


def make_unet(case, dtype):
    if case.get("runtime") == "onnxruntime":
        return make_onnx_unet(case)
    from diffusers import UNet2DConditionModel

    folder = case["model"] + "/unet"
    config = UNet2DConditionModel.load_config(folder)
    make = lambda: UNet2DConditionModel.from_config(config)
    unet = load(make, folder, "diffusion_pytorch_model", dtype)
    if case.get("runtime") == "compiled":
        # Weights are packed for oneDNN, which needs both.
        torch._inductor.config.freezing = True
        torch._inductor.config.freezing_discard_parameters = True
        unet.forward = torch.compile(unet.forward)
    batch = case.get("batch", 1)
    sample = rand(batch, 4, case["rows"], case["width"]).to(dtype)
    embeds = rand(batch, 77, unet.config.cross_attention_dim).to(dtype)
    conditions = {"text_embeds": rand(batch, 1280).to(dtype), "time_ids": rand(batch, 6).to(dtype)}
    timestep = torch.tensor([601.0])
    return lambda: unet(
        sample, timestep, encoder_hidden_states=embeds, added_cond_kwargs=conditions
    ).sample


def make_vae(case, dtype):
    from diffusers import AutoencoderKL

    folder = case["model"] + "/vae"
    config = AutoencoderKL.load_config(folder)
    make = lambda: AutoencoderKL.from_config(config)
    vae = load(make, folder, "diffusion_pytorch_model", dtype)
    latent = rand(1, 4, case["rows"], case["width"]).to(dtype)
    return lambda: vae.decode(latent).sample


def make_text(case, dtype):
    from transformers import CLIPTextModel, CLIPTextModelWithProjection

    folders = [case["model"] + "/text_encoder", case["model"] + "/text_encoder_2"]
    classes = [CLIPTextModel, CLIPTextModelWithProjection]
    models = [c.from_pretrained(f, dtype=dtype) for c, f in zip(classes, folders)]
    ids = torch.full((1, 77), 5)
    return lambda: [m(ids, output_hidden_states=True).hidden_states[-2] for m in models]


MAKERS = {name[5:]: make for name, make in list(globals().items()) if name.startswith("make_")}


def main():
    torch.set_grad_enabled(False)
    torch.manual_seed(0)
    torch.set_num_threads(os.cpu_count())
    out = sys.stdout
    # Libraries print warnings; the answers alone go to the real standard output.
    sys.stdout = sys.stderr
    about = {"torch": torch.__version__, "threads": torch.get_num_threads()}
    if importlib.util.find_spec("onnxruntime"):
        about["onnxruntime"] = importlib.metadata.version("onnxruntime")
    print(json.dumps(about), file=out, flush=True)
    last, call = None, None
    for line in sys.stdin:
        if line != last:
            call = None
            case = json.loads(line)
            call = MAKERS[case["op"]](case, DTYPES[case.get("dtype", "f32")])
            call()
            last = line
        start = time.perf_counter()
        call()
        print((time.perf_counter() - start) * 1e3, file=out, flush=True)


if __name__ == "__main__":
    main()
