"""Records prompts that images combine by AND, and the guidance window: combined.* in
tests/fixtures, for tests/native/combined.test.ts and tests/control/combined.test.ts.

The splitting and the filling of shorter prompts are A1111's (Forge's clone is the argument), the
model and the samplers diffusers'. The model must exist: `bun run fixtures`. Needs lark.
python tests/reference/make_combined.py sd-webui-forge-classic
"""

import random
import subprocess
import sys
import types

import diffusers
import torch
from diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl import rescale_noise_cfg
from harness import load_pipeline, save

WIDTH, HEIGHT = 32, 64  # pixels
STEPS = 6
SCALE = 5.0
RESCALE = 0.5
SEED = 3
# Two chunks in the second: the others are filled.
PROMPT = "a red circle :1.2 AND a blue square BREAK a dog:0.8 AND a cat : -0.5"
NEGATIVE = "blurry"
SCHEDULERS = {
    "euler": ("EulerDiscreteScheduler", {}),
    "dpmpp_2m": ("DPMSolverMultistepScheduler", {}),
    "heun": ("HeunDiscreteScheduler", {}),
}
# Steps with guidance, and prompts combined or the first alone.
RUNS = {"and": ((0, STEPS), True), "window": ((1, 4), False), "both": ((2, 5), True)}
WORDS = ["a", "red", "AND", "AND", "AND", " ", "\n", ":", ":1.2", " : .5", ":2.", ":-1", ": +0.25 ",
         ":1e3", "(b:1.1)", "[c:d:0.5]", "BREAK", "and", "aAND", "ANDb", "-", ",", "\u00e9", "AND_"]


def parser_of(repository):
    path = "modules/prompt_parser.py"
    text = subprocess.check_output(["git", "-C", repository, "show", f"HEAD:{path}"], text=True)
    made = types.ModuleType("prompt_parser")
    made.torch = torch
    exec(compile(text, path, "exec"), made.__dict__)
    return made


def splits(parser):
    """Random prompts and what they combine."""
    chosen = random.Random(7)
    prompts = [PROMPT, "", "AND", "a AND", "AND b :-1", "a :1.2", "a:1.2 ", "a:b"]
    while len(prompts) < 150:
        glue = chosen.choice(["", " "])
        prompts.append(glue.join(chosen.choices(WORDS, k=chosen.randint(1, 8))))
    rows = []
    for prompt in prompts:
        (indexes,), texts, _ = parser.get_multicond_prompt_list([prompt])
        rows.append([prompt, [[texts[i], weight] for i, weight in indexes]])
    return rows


def encode(pipeline, text):
    """States of all chunks, and the pooled output of the first."""
    chunks = [pipeline.encode_prompt(part.strip(), do_classifier_free_guidance=False)
              for part in text.split("BREAK")]
    return torch.cat([chunk[0][0] for chunk in chunks]), chunks[0][2][0]


def run(pipeline, parser, kind, config, window, combines):
    (indexes,), texts, _ = parser.get_multicond_prompt_list([PROMPT])
    if not combines:
        indexes, texts = [(0, 1.0)], ["a red circle"]
    encoded = [encode(pipeline, text) for text in texts]
    states = parser.stack_conds([states for states, _ in encoded])
    positives = list(zip(states, [pooled for _, pooled in encoded]))
    weights = [weight for _, weight in indexes]
    unwanted = encode(pipeline, NEGATIVE)
    scheduler = getattr(diffusers, kind).from_config(pipeline.scheduler.config, **config)
    scheduler.set_timesteps(STEPS)
    per_step = round(len(scheduler.timesteps) / STEPS)
    generator = torch.Generator("cpu").manual_seed(SEED)
    x = torch.randn((1, 4, HEIGHT // 8, WIDTH // 8), generator=generator)
    x = x * scheduler.init_noise_sigma
    time_ids = torch.tensor([[HEIGHT, WIDTH, 0, 0, HEIGHT, WIDTH]])

    def predict(t, states, pooled):
        return pipeline.unet(
            scheduler.scale_model_input(x, t),
            t,
            encoder_hidden_states=states[None],
            added_cond_kwargs={"text_embeds": pooled[None], "time_ids": time_ids},
        ).sample

    for i, t in enumerate(scheduler.timesteps):
        outputs = [predict(t, *positive) for positive in positives]
        mean = sum(w * e for w, e in zip(weights, outputs)) / sum(weights)
        e = mean
        if window[0] <= i // per_step < window[1]:
            negative = predict(t, *unwanted)
            e = negative + sum(SCALE * w * (o - negative) for w, o in zip(weights, outputs))
            e = rescale_noise_cfg(e, mean, guidance_rescale=RESCALE)
        x = scheduler.step(e, t, x, return_dict=False)[0]
    return x


def main():
    torch.set_num_threads(1)
    parser = parser_of(sys.argv[1])
    pipeline = load_pipeline("tests/fixtures/golden/model")
    tensors = {}
    for name, (window, combines) in RUNS.items():
        for sampler, (kind, config) in SCHEDULERS.items():
            made = run(pipeline, parser, kind, config, window, combines)
            tensors[f"{name}.{sampler}"] = made
    notes = {
        "width": WIDTH, "height": HEIGHT, "steps": STEPS, "scale": SCALE, "rescale": RESCALE,
        "seed": SEED, "prompt": PROMPT, "negative": NEGATIVE, "samplers": list(SCHEDULERS),
        "runs": [{"name": name, "window": window, "combines": combines}
                 for name, (window, combines) in RUNS.items()],
        "splits": splits(parser),
    }
    save("tests/fixtures/combined", tensors, notes)


main()
