"""Records runs of the golden model that reuse steps, for tests/native/reuse-reference.test.ts:
reuse.json in tests/fixtures. DeepCache and T-GATE are written here with wrapped modules of
diffusers' UNet, from their papers' programs (horseee/DeepCache, HaozheLiu-ST/T-GATE).

Run from the repository root: python tests/reference/make_reuse.py
"""

import json

from harness import load_pipeline, torch

SIDE = 64  # pixels
STEPS = 8
SEED = 7
PROBES = 12
RUNS = [
    {"name": "interval 2", "interval": 2, "branch": 0, "gate": 0},
    {"name": "interval 3, branch 2", "interval": 3, "branch": 2, "gate": 0},
    {"name": "gate 3", "interval": 1, "branch": 0, "gate": 3},
    {"name": "both", "interval": 2, "branch": 1, "gate": 5},
]


class State:
    """The step that the UNet is in, counted by its calls."""

    def __init__(self, interval, gate):
        self.step, self.interval, self.gate = -1, interval, gate
        self.is_cached = False

    def begin(self, *_):
        self.step += 1
        # A step that keeps cross-attention, and the first with the prompt alone, are full.
        first = self.gate if self.gate and self.step >= self.gate else 0
        is_kept = self.gate > 0 and self.step == self.gate - 1
        is_full = self.step % self.interval == 0 or is_kept or self.step == first
        self.is_cached = not is_full


def wrap_deep(module, state):
    forward, kept = module.forward, {}

    def wrapped(*args, **kwargs):
        if not state.is_cached:
            kept["out"] = forward(*args, **kwargs)
        return kept["out"]

    module.forward = wrapped
    return module, forward


def deep_modules(unet, branch):
    """Those that a cached step leaves out: what makes or reads a skip after number `branch`."""
    skip = 0
    for block in unet.down_blocks:
        for i, resnet in enumerate(block.resnets):
            skip += 1
            if skip > branch:
                yield resnet
                yield from getattr(block, "attentions", [])[i : i + 1]
        for downsampler in block.downsamplers or []:
            skip += 1
            if skip > branch:
                yield downsampler
    yield unet.mid_block
    for block in unet.up_blocks:
        for i, resnet in enumerate(block.resnets):
            if skip > branch:
                yield resnet
                yield from getattr(block, "attentions", [])[i : i + 1]
            skip -= 1
        if skip + 1 > branch:
            yield from block.upsamplers or []


def wrap_cross(module, state):
    forward, kept = module.forward, {}

    def wrapped(*args, **kwargs):
        if state.gate and state.step >= state.gate:
            return kept["mean"]
        out = forward(*args, **kwargs)
        if state.step == state.gate - 1:
            negative, prompt = out.chunk(2)
            kept["mean"] = (negative + prompt) / 2
        return out

    module.forward = wrapped
    return module, forward


def run_of(pipeline, interval, branch, gate, **_):
    unet, state = pipeline.unet, State(interval, gate)
    hook = unet.register_forward_pre_hook(state.begin)
    wrapped = [wrap_deep(module, state) for module in deep_modules(unet, branch)]
    for name, module in unet.named_modules():
        if name.endswith("attn2"):
            wrapped.append(wrap_cross(module, state))

    def end_guidance(pipe, step, _, tensors):
        if gate and step == gate - 1:
            pipe._guidance_scale = 0.0
            tensors = {key: value.chunk(2)[1] for key, value in tensors.items()}
        return tensors

    latents = pipeline(
        "a red circle",
        negative_prompt="blurry",
        width=SIDE,
        height=SIDE,
        num_inference_steps=STEPS,
        guidance_scale=5.0,
        generator=torch.Generator("cpu").manual_seed(SEED),
        output_type="latent",
        callback_on_step_end=end_guidance,
        callback_on_step_end_tensor_inputs=["prompt_embeds", "add_text_embeds", "add_time_ids"],
    ).images.flatten()
    hook.remove()
    for module, forward in wrapped:
        module.forward = forward
    places = torch.linspace(0, latents.numel() - 1, PROBES).long()
    return [round(value, 6) for value in latents[places].tolist()]


def main():
    pipeline = load_pipeline("tests/fixtures/golden/model")
    runs = [run | {"probes": run_of(pipeline, **run)} for run in RUNS]
    common = {"side": SIDE, "steps": STEPS, "seed": SEED}
    with open("tests/fixtures/reuse.json", "w") as file:
        json.dump(common | {"runs": runs}, file, indent=1)
        file.write("\n")


main()
