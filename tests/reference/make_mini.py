"""Records one image of the bundled model, drawn by PyTorch and diffusers: tests/fixtures/mini.

Run from the repository root: python tests/reference/make_mini.py [MODEL_FOLDER]
"""

import sys

from harness import decode, load_pipeline, run, save

SPEC = {
    "name": "euler",
    "steps": 25,
    "guidance": 4.0,
    "seed": 42,
    "prompt": "a red house left of a green tree on the grass",
    "negative": None,
    "height": 256,
    "width": 256,
    "scheduler": "EulerDiscreteScheduler",
    "config": {},
}


def main():
    pipeline = load_pipeline(sys.argv[1] if len(sys.argv) > 1 else "src/assets/mini-sdxl")
    tensors = run(pipeline, SPEC)
    tensors["run.euler.image"] = decode(pipeline, tensors["run.euler.latents"])
    note = "weights widened from f16; a negative of null means zeros; image is not clamped"
    save("tests/fixtures/mini", tensors, {"runs": [SPEC], "note": note})


main()
