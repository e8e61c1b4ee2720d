"""PyTorch's side of `bun run bench gpu`: the same operations, and whole models with random weights.

    gpu_peer.py [--device cuda|cpu]     reads a case of JSON per line, answers with JSON per line

The first line lists the versions. A case is an operation of zig/backend/op_trace.zig with a "dtype", or
{"op": "unet" | "vae" | "text" | "image", "model": FOLDER, "rows", "width", "batch", "dtype",
"compile": MODE or ""}; of the folder only the configs are read. Answers are {"ms": 0.1}, by CUDA
events, or {"error": "reason"}. Tensors are channels_last, attention is scaled_dot_product_attention
by the fastest of its backends, of which a case may name one ("backend": "cudnn" or "flash"). Models
need diffusers and transformers on PYTHONPATH. --device cpu tests that it runs; its times are the
CPU's.
"""

import argparse
import json
import sys
import time

import torch
import torch.nn.functional as F

DTYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}
# Of one sample on a GPU, and how often at most.
SAMPLE_MS, REPEATS_MAX = 5.0, 200


def rand(*shape, dtype):
    return torch.randn(shape, dtype=dtype)


def image(case, dtype, channels=None):
    shape = case["batch"], channels or case["in"], case["rows"], case["width"]
    return rand(*shape, dtype=dtype).contiguous(memory_format=torch.channels_last)


def sequence(case, dtype, channels=None):
    return rand(case["batch"], case["rows"] * case["width"], channels or case["in"], dtype=dtype)


def make_linear(case, dtype):
    x, weight = sequence(case, dtype), rand(case["out"], case["in"], dtype=dtype)
    bias = rand(case["out"], dtype=dtype) if case["bias"] else None
    if not case["residual"]:
        return lambda: F.linear(x, weight, bias)
    residual = sequence(case, dtype, case["out"])
    return lambda: F.linear(x, weight, bias) + residual


def make_conv2d(case, dtype):
    x, k = image(case, dtype), case["kernel"]
    weight = rand(case["out"], case["in"], k, k, dtype=dtype)
    weight = weight.contiguous(memory_format=torch.channels_last)
    bias = rand(case["out"], dtype=dtype) if case["bias"] else None
    stride, padding = case["stride"], case["padding"]
    conv = lambda: F.conv2d(x, weight, bias, stride=stride, padding=padding)
    if not case["residual"]:
        return conv
    residual = conv().clone()
    return lambda: conv() + residual


def sdpa(q, k, v, causal, backend):
    if backend == "":
        return F.scaled_dot_product_attention(q, k, v, is_causal=causal)
    from torch.nn.attention import SDPBackend, sdpa_kernel

    names = {"cudnn": SDPBackend.CUDNN_ATTENTION, "flash": SDPBackend.FLASH_ATTENTION}
    with sdpa_kernel([names[backend]]):
        return F.scaled_dot_product_attention(q, k, v, is_causal=causal)


def make_attention(case, dtype):
    heads, size = case["heads"], case["in"] // case["heads"]

    def split(tokens):
        return rand(case["batch"], tokens, heads, size, dtype=dtype).transpose(1, 2)

    q, k, v = split(case["rows"] * case["width"]), split(case["keys"]), split(case["keys"])
    backend = case.get("backend", "")
    return lambda: sdpa(q, k, v, case["causal"], backend)


def make_cross_attention(case, dtype):
    heads, size = case["heads"], case["out"] // case["heads"]
    x, weight = sequence(case, dtype), rand(case["out"], case["in"], dtype=dtype)
    batch, tokens = case["batch"], case["rows"] * case["width"]

    def split(of, count):
        return of.reshape(batch, count, heads, size).transpose(1, 2)

    k, v = (split(rand(batch, case["keys"], case["out"], dtype=dtype), case["keys"]) for _ in "kv")
    return lambda: sdpa(split(F.linear(x, weight), tokens), k, v, False, "")


def make_group_norm(case, dtype):
    x = image(case, dtype)
    weight, bias = rand(case["in"], dtype=dtype), rand(case["in"], dtype=dtype)
    norm = lambda: F.group_norm(x, case["groups"], weight, bias, 1e-5)
    return (lambda: F.silu(norm())) if case["activation"] == "silu" else norm


def make_layer_norm(case, dtype):
    x = sequence(case, dtype)
    weight, bias = rand(case["in"], dtype=dtype), rand(case["in"], dtype=dtype)
    return lambda: F.layer_norm(x, (case["in"],), weight, bias, 1e-5)


def make_geglu(case, dtype):
    x = sequence(case, dtype)

    def geglu():
        value, gate = x.chunk(2, dim=-1)
        return value * F.gelu(gate)

    return geglu


def make_linear_geglu(case, dtype):
    x, weight = sequence(case, dtype), rand(2 * case["out"], case["in"], dtype=dtype)
    bias = rand(2 * case["out"], dtype=dtype)

    def linear_geglu():
        value, gate = F.linear(x, weight, bias).chunk(2, dim=-1)
        return value * F.gelu(gate)

    return linear_geglu


def make_add(case, dtype):
    x, y = sequence(case, dtype), sequence(case, dtype)
    return lambda: x + y


def make_concat(case, dtype):
    x, y = image(case, dtype), image(case, dtype, case["out"] - case["in"])
    return lambda: torch.cat([x, y], dim=1)


def make_copy(case, dtype):
    x, y = sequence(case, dtype), sequence(case, dtype)
    return lambda: y.copy_(x)


def randomized(make, dtype):
    """A model with random weights that preserve the variance of their input."""
    with torch.device("meta"):
        model = make()
    model = model.to_empty(device=torch.get_default_device()).to(dtype)
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if tensor.is_floating_point() and tensor.dim() > 1:
            tensor.normal_(0, 0.7 * (tensor.numel() / tensor.shape[0]) ** -0.5)
        elif tensor.is_floating_point():
            tensor.fill_(0 if name.endswith("bias") else 1)
        elif tensor.dim() == 2:
            tensor.copy_(torch.arange(tensor.shape[1]).expand(tensor.shape))
    return model.eval()


def compiled(model, case):
    mode = case.get("compile", "")
    return torch.compile(model, mode=mode, fullgraph=True) if mode else model


def unet_call(case, dtype):
    from diffusers import UNet2DConditionModel

    config = UNet2DConditionModel.load_config(case["model"] + "/unet")
    unet = randomized(lambda: UNet2DConditionModel.from_config(config), dtype)
    unet = compiled(unet.to(memory_format=torch.channels_last), case)
    c, batch = unet.config, case["batch"]
    embeds = rand(batch, 77, c.cross_attention_dim, dtype=dtype)
    pooled = c.projection_class_embeddings_input_dim - 6 * c.addition_time_embed_dim
    conditions = {
        "text_embeds": rand(batch, pooled, dtype=dtype),
        "time_ids": torch.ones((batch, 6), dtype=dtype) * 1024,
    }
    timestep = torch.tensor(601.0)
    return lambda x: unet(
        x, timestep, encoder_hidden_states=embeds, added_cond_kwargs=conditions, return_dict=False
    )[0]


def vae_call(case, dtype):
    from diffusers import AutoencoderKL

    config = AutoencoderKL.load_config(case["model"] + "/vae")
    vae = randomized(lambda: AutoencoderKL.from_config(config), dtype)
    vae = vae.to(memory_format=torch.channels_last)
    vae.decoder = compiled(vae.decoder, case)
    return lambda x: vae.decode(x, return_dict=False)[0]


def latent(case, dtype, batch):
    return image({**case, "batch": batch, "in": 4}, dtype)


def make_unet(case, dtype):
    call, x = unet_call(case, dtype), latent(case, dtype, case["batch"])
    return lambda: call(x)


def make_vae(case, dtype):
    call, x = vae_call(case, dtype), latent(case, dtype, 1)
    return lambda: call(x)


def make_image(case, dtype):
    """Guided Euler steps and the decoding, as a pipeline does them; no text."""
    unet, vae, start = unet_call(case, dtype), vae_call(case, dtype), latent(case, dtype, 1)

    def draw():
        x = start
        for _ in range(case["steps"]):
            negative, positive = unet(torch.cat([x, x])).clone().chunk(2)
            x = x - 0.01 * (negative + 5 * (positive - negative))
        return vae(x)

    return draw


def make_text(case, dtype):
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    models = []
    kinds = {"text_encoder": CLIPTextModel, "text_encoder_2": CLIPTextModelWithProjection}
    for part, kind in kinds.items():
        config = CLIPTextConfig.from_pretrained(f"{case['model']}/{part}")
        models.append(compiled(randomized(lambda: kind(config), dtype), case))
    ids = torch.full((2, 77), 5)
    return lambda: [m(ids, output_hidden_states=True).hidden_states[-2] for m in models]


MAKERS = {name[5:]: make for name, make in list(globals().items()) if name.startswith("make_")}


class Timer:
    """Milliseconds of a call; on a GPU by CUDA events around many repeats of short calls."""

    def __init__(self, on_gpu):
        self.on_gpu = on_gpu

    def once(self, call, repeats):
        if not self.on_gpu:
            start = time.perf_counter()
            call()
            return (time.perf_counter() - start) * 1e3
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        for _ in range(repeats):
            call()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / repeats

    def repeats(self, call):
        """Also warms up: libraries select algorithms, graphs are captured."""
        for _ in range(3 if self.on_gpu else 1):
            call()
        if not self.on_gpu:
            return 1
        return max(1, min(REPEATS_MAX, int(SAMPLE_MS / max(self.once(call, 1), 1e-3))))


def about(device):
    try:
        import diffusers

        version = diffusers.__version__
    except ImportError:
        version = None
    on_gpu = device == "cuda"
    return {
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version() if on_gpu else None,
        "gpu": torch.cuda.get_device_name() if on_gpu else "CPU",
        "diffusers": version,
    }


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    device = parser.parse_args().device
    if device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("torch sees no GPU")
    torch.set_grad_enabled(False)
    torch.manual_seed(0)
    torch.set_default_device(device)
    if device == "cpu":
        # Half precision takes minutes there, and threads that spin disturb others.
        DTYPES.update(f16=torch.float32, bf16=torch.float32)
        torch.set_num_threads(1)
    torch.backends.cudnn.benchmark = True
    out = sys.stdout
    # Libraries print warnings; the answers alone go to the real standard output.
    sys.stdout = sys.stderr
    print(json.dumps(about(device)), file=out, flush=True)
    timer = Timer(device == "cuda")
    last, call, repeats = None, None, 1
    for line in sys.stdin:
        try:
            if line != last:
                call = last = None
                if device == "cuda":
                    torch.cuda.empty_cache()
                case = json.loads(line)
                if case["op"] not in MAKERS:
                    raise ValueError("PyTorch has no such operation")
                call = MAKERS[case["op"]](case, DTYPES[case.get("dtype", "f16")])
                repeats = timer.repeats(call)
                last = line
            answer = {"ms": timer.once(call, repeats)}
        except Exception as error:
            answer = {"error": f"{case.get('op')}: {' '.join(str(error).split())[:300]}"}
        print(json.dumps(answer), file=out, flush=True)


if __name__ == "__main__":
    main()
