"""Writes tests/fixtures/tokens-clip.json: ids of prompts by transformers' CLIPTokenizer with the
vocabulary of the package open_clip_torch, without the padding behind the first.

    pip download --no-deps open-clip-torch && unzip -o open_clip_torch-*.whl
    python tests/reference/make_clip_tokens.py .
"""

import gzip
import json
import sys
import tempfile
from pathlib import Path

from transformers import CLIPTokenizer

PROMPTS = [
    "a photo of a cat",
    "an astronaut riding a horse on mars",
    "hello world!",
    "masterpiece, best quality, 1girl, solo, (highly detailed:1.2), 8k uhd",
    "A Victorian house, oil painting by Claude Monet -- golden hour; trending on ArtStation",
    "it's the dog's 2nd birthday, isn't it? we've 1234 candles",
    "Café São Paulo, naïve façade, Ærøskøbing",
    "日本の城, 桜, 夜",
    "Привет, мир",
    "🐈‍⬛ emoji & <b>markup</b> \t tabs\nand lines",
    "!!! !",
    "supercalifragilisticexpialidocious antidisestablishmentarianism",
    "",
    "word " * 90,
]


def main() -> None:
    folder = Path(sys.argv[1]) / "open_clip"
    with gzip.open(folder / "bpe_simple_vocab_16e6.txt.gz") as file:
        merges = file.read().decode().split("\n")[1 : 49152 - 256 - 2 + 1]
    codes = [*range(33, 127), *range(161, 173), *range(174, 256)]
    codes += [256 + index for index in range(256 - len(codes))]
    tokens = [chr(code) for code in codes]
    tokens += [f"{token}</w>" for token in tokens] + [line.replace(" ", "") for line in merges]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    with tempfile.TemporaryDirectory() as made:
        vocab = {token: index for index, token in enumerate(tokens)}
        Path(made, "vocab.json").write_text(json.dumps(vocab))
        Path(made, "merges.txt").write_text("\n".join(["#version: 0.2", *merges]))
        cases = []
        for pad in ["<|endoftext|>", "!"]:
            tokenizer = CLIPTokenizer.from_pretrained(made, pad_token=pad)
            for prompt in PROMPTS:
                ids = tokenizer(
                    prompt, padding="max_length", max_length=77, truncation=True
                ).input_ids
                while len(ids) > 1 and ids[-1] == ids[-2]:
                    ids.pop()
                cases.append([pad, prompt, ids])
    lines = ",\n".join(json.dumps(case, ensure_ascii=False) for case in cases)
    target = Path(__file__).parent.parent / "fixtures" / "tokens-clip.json"
    target.write_text(f"[\n{lines}\n]\n")


main()
