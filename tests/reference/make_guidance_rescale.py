"""Records latents that diffusers draws with guidance_rescale, by every sampler there is.

Run from the repository root: python tests/reference/make_guidance_rescale.py
"""

import json

from harness import load_pipeline, run, save

GOLDEN = "tests/fixtures/golden"


def main():
    pipeline = load_pipeline(f"{GOLDEN}/model")
    with open(f"{GOLDEN}/golden.json") as file:
        recorded = {entry["name"]: entry for entry in json.load(file)["runs"]}
    tensors = {}
    runs = []
    for name, rescale in [("euler", 0.7), ("euler_a", 0.7), ("ddim", 0.7), ("euler", 1.0)]:
        spec = recorded[name] | {"name": f"{name}_rescale_{rescale}", "rescale": rescale}
        spec |= {"steps": 6, "guidance": 7.5}
        out = run(pipeline, spec)
        key = f"run.{spec['name']}.latents"
        without = run(pipeline, spec | {"rescale": 0.0})[key]
        print(f"{spec['name']}: {float((out[key] - without).norm() / without.norm()):.3f} moved")
        tensors[key] = out[key]
        runs.append(spec)
    save(f"{GOLDEN}/rescale", tensors, {"runs": runs, "note": "as golden.json"})


main()
