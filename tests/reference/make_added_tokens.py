"""Records token sources of transformers' CLIPTokenizer, for tests/control/added-tokens.test.ts.

Usage: python tests/reference/make_added_tokens.py   (from the repository root; transformers 5.18)
Writes tests/fixtures/tokens-added.json: the tokenizer.json that transformers saves for golden's
tokenizer (without its vocabulary and merges, which the test fills in), folders by the files beside
or instead of vocab.json and merges.txt, and for each text the ids that each folder gives.
"""

import json
import os
import shutil
import tempfile

from transformers import CLIPTokenizer

GOLDEN = "tests/fixtures/golden/model/tokenizer"
OUT = "tests/fixtures/tokens-added.json"


def token(content, **flags):
    """A token as tokenizer.json writes it, without its id."""
    base = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return {"content": content, **base, "special": False, **flags}


BOS, EOS = "<|startoftext|>", "<|endoftext|>"
SPECIAL = [
    {"id": 820, **token(BOS, special=True)},
    {"id": 821, **token(EOS, special=True)},
]
FLAGS = [
    token("<raw>"),
    token("<Norm>", normalized=True),
    token("<left>", lstrip=True),
    token("<right>", rstrip=True),
    token("both", lstrip=True, rstrip=True, normalized=True),
    token("Word", single_word=True),
    token("wörd", single_word=True, normalized=True, lstrip=True),
    token("<raw> x"),
    token("a+b|c", normalized=True),
]
FLAGGED = [{"id": 822 + i, **entry} for i, entry in enumerate(FLAGS)]
NEW = {"id": 822, **token("<new>", normalized=True)}

# Files by name. "tokenizer.json" says what differs from the saved one; "old" adds vocab.json and
# merges.txt beside it.
FOLDERS = {
    "alone": {"tokenizer.json": {}},
    "alone, merges as text": {"tokenizer.json": {"merges": "text"}},
    "alone, pads with !": {"tokenizer.json": {}, "tokenizer_config.json": {"pad_token": "!"}},
    "alone, all flags": {"tokenizer.json": {"added_tokens": SPECIAL + FLAGGED}},
    "decoder, all flags": {
        "old": True,
        "tokenizer_config.json": {
            "added_tokens_decoder": {str(822 + i): entry for i, entry in enumerate(FLAGS)}
        },
    },
    "decoder without flags": {
        "old": True,
        "tokenizer_config.json": {
            "added_tokens_decoder": {
                "822": {"content": "<New>"},
                "823": {"content": "<Sp>", "special": True},
            }
        },
    },
    "added_tokens.json": {"old": True, "added_tokens.json": {"<New>": 822, "<mask>": 823}},
    "added_tokens.json with a role": {
        "old": True,
        "added_tokens.json": {"<New>": 822, "<Mask>": 823, "<Extra>": 824},
        "special_tokens_map.json": {"mask_token": "<Mask>"},
        "tokenizer_config.json": {"extra_special_tokens": ["<Extra>"]},
    },
    "tokenizer.json beside old files": {
        "old": True,
        "tokenizer.json": {"added_tokens": [*SPECIAL, NEW]},
        "added_tokens.json": {"<raw>": 823},
    },
    "decoder before all others": {
        "old": True,
        "tokenizer.json": {"added_tokens": [*SPECIAL, {"id": 822, **token("<new>")}]},
        "added_tokens.json": {"<raw>": 823},
        "special_tokens_map.json": {"pad_token": "!", "mask_token": "<mask>"},
        "tokenizer_config.json": {"added_tokens_decoder": {"822": token("<left>", lstrip=True)}},
    },
    "tokens without ids": {
        "old": True,
        "special_tokens_map.json": {"mask_token": "<mask>", "additional_special_tokens": ["<New>"]},
        "tokenizer_config.json": {"sep_token": "<left>", "my_token": "<raw>"},
    },
    "extra before additional": {
        "old": True,
        "tokenizer_config.json": {"extra_special_tokens": ["<New>", EOS]},
        "special_tokens_map.json": {"extra_special_tokens": ["<mask>"]},
    },
    "named extra tokens": {
        "old": True,
        "tokenizer_config.json": {"extra_special_tokens": {"image_token": "<New>"}},
    },
    "other sections": {
        "tokenizer.json": {
            "truncation": {
                "direction": "Right",
                "max_length": 77,
                "strategy": "LongestFirst",
                "stride": 0,
            },
            "padding": {
                "strategy": {"Fixed": 77},
                "direction": "Right",
                "pad_to_multiple_of": None,
                "pad_id": 0,
                "pad_type_id": 0,
                "pad_token": "!",
            },
        }
    },
}

TEXTS = [
    "a photo of a cat!",
    f"a {EOS} b",
    "a <raw> b<raw>c <RAW> <raw> x",
    "a <norm> b<NORM>c <Norm>",
    "a  <left>  b \u00a0\u2003<left>c",
    "a  <right>  b<right> \u0085 c <right><left> d",
    "A  BOTH  b bothBoth bo th both",
    "Word word a Word b Words aWord Word_ _Word Word. (Word) Word\u0301 \u00dfWord Word1",
    "w\u00f6rd W\u00d6RD wo\u0308rd w\u00f6rds a w\u00f6rd.",
    "a+b|c A+B|C a+B|cd",
    "<new> <New> <NEW>x <mask> <Mask> <MASK> <sp> <Sp> <extra> <Extra>",
    "<new><new> <mask><left>",
    " ".join(["<raw> cat"] * 40),
    "",
]


def open_folder(folder, files, template):
    """The tokenizer of these files, with golden's vocabulary and merges."""
    os.makedirs(folder)
    if files.get("old"):
        for name in ("vocab.json", "merges.txt"):
            shutil.copy(f"{GOLDEN}/{name}", folder)
    for name, content in files.items():
        if name == "old":
            continue
        if name == "tokenizer.json":
            content = {**json.loads(json.dumps(template)), **content}
            if content.pop("merges", "pairs") == "text":
                content["model"]["merges"] = [" ".join(m) for m in content["model"]["merges"]]
        with open(f"{folder}/{name}", "w") as file:
            json.dump(content, file)
    return CLIPTokenizer.from_pretrained(folder)


def padded(tokenizer, text):
    return tokenizer(text, padding="max_length", truncation=True, max_length=77).input_ids


def without_padding(ids, pad):
    end = len(ids)
    while end > 0 and ids[end - 1] == pad:
        end -= 1
    return ids[:end]


def main():
    with tempfile.TemporaryDirectory() as root:
        CLIPTokenizer.from_pretrained(GOLDEN).save_pretrained(f"{root}/saved")
        with open(f"{root}/saved/tokenizer.json") as file:
            template = json.load(file)
        tokenizers = {
            name: open_folder(f"{root}/{i}", files, template)
            for i, (name, files) in enumerate(FOLDERS.items())
        }
    template["model"].update(vocab=None, merges=None)
    out = {
        "template": template,
        "folders": {
            name: {
                "files": files,
                "pad": tokenizers[name].pad_token_id,
                "size": len(tokenizers[name]),
                "ids": [
                    without_padding(padded(tokenizers[name], text), tokenizers[name].pad_token_id)
                    for text in TEXTS
                ],
            }
            for name, files in FOLDERS.items()
        },
        "texts": TEXTS,
    }
    with open(OUT, "w") as file:
        json.dump(out, file, separators=(",", ":"))
        file.write("\n")


main()
