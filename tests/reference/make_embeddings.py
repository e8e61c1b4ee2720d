"""Records the golden model's outputs with textual inversion: tests/fixtures/embeddings.*.

The embeddings are formulas (tests/support/embedding-files.ts writes the same), loaded as diffusers
does: rows added to the vocabularies of both encoders. The model must exist: `bun run fixtures`.
Run from the repository root: python tests/reference/make_embeddings.py
"""

from harness import embed, load_pipeline, run, save
from thin import formula_input

GOLDEN = "tests/fixtures/golden"
AMPLITUDE = 0.25
# Vectors of each embedding; "half" has none for the second encoder.
EMBEDDINGS = {"blot-style": (3, 3), "bad_mood": (2, 2), "half": (1, 0)}
PROMPTS = {
    "one": "a photo of blot-style above a blue square",
    "two": "bad_mood, a red circle, blot-style",
    "cut": "red " * 73 + "blot-style and a blue square",
    # The second encoder's prompt is without the word.
    "half": "a photo of half above a blue square",
}
SPEC = {
    "name": "euler",
    "steps": 6,
    "guidance": 5.0,
    "seed": 42,
    "prompt": PROMPTS["one"],
    "negative": "blurry, bad_mood",
    "height": 256,
    "width": 256,
    "scheduler": "EulerDiscreteScheduler",
    "config": {},
}


def load_embeddings(pipeline):
    parts = [
        ("clip_l", pipeline.text_encoder, pipeline.tokenizer),
        ("clip_g", pipeline.text_encoder_2, pipeline.tokenizer_2),
    ]
    for name, counts in EMBEDDINGS.items():
        for count, (key, encoder, tokenizer) in zip(counts, parts):
            if count == 0:
                continue
            shape = (count, encoder.config.hidden_size)
            rows = formula_input(f"embeddings/{name}.{key}", shape, AMPLITUDE)
            pipeline.load_textual_inversion(
                rows, token=name, text_encoder=encoder, tokenizer=tokenizer
            )


def main():
    pipeline = load_pipeline(f"{GOLDEN}/model")
    load_embeddings(pipeline)
    tensors = {}
    for name, prompt in PROMPTS.items():
        if name == "half":
            positive, _, pooled, _ = pipeline.encode_prompt(
                prompt, prompt_2=prompt.replace("half ", ""), do_classifier_free_guidance=False
            )
        else:
            positive, _, pooled, _ = embed(pipeline, prompt, None)
        tensors |= {f"text.{name}.prompt_embeds": positive, f"text.{name}.pooled": pooled}
    latents = f"run.{SPEC['name']}.latents"
    tensors[latents] = run(pipeline, SPEC)[latents]
    notes = {
        "amplitude": AMPLITUDE,
        "embeddings": EMBEDDINGS,
        "prompts": PROMPTS,
        "runs": [SPEC],
        "note": "rows by formula, named embeddings/NAME.clip_l and embeddings/NAME.clip_g",
    }
    save("tests/fixtures/embeddings", tensors, notes)


main()
