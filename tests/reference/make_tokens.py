"""Records token ids of transformers' CLIPTokenizer for tests/control/tokenizer.test.ts.

Usage: python tests/reference/make_tokens.py   (from the repository root; transformers 5.18)
Writes tests/fixtures/tokens-odd.json: tokenizers (golden's vocabulary, other special-token files)
and, for each text, the ids that each of them gives, up to the EOS; padding follows.
"""

import json
import os
import shutil
import tempfile

from transformers import CLIPTokenizer

GOLDEN = "tests/fixtures/golden/model/tokenizer"
OUT = "tests/fixtures/tokens-odd.json"
LENGTH = 77


def token(content, normalized, **flags):
    """A token as tokenizer_config.json writes it."""
    entry = {"content": content, "lstrip": False, "normalized": normalized, "rstrip": False}
    return {**entry, "single_word": False, **flags}


BOS, EOS = "<|startoftext|>", "<|endoftext|>"
FLAGGED = {
    "bos_token": token(BOS, True),
    "eos_token": token(EOS, True),
    "unk_token": token(EOS, True),
}
DECODER = {
    "0": token("!", False, special=True),
    "820": token(BOS, True, special=True),
    "821": token(EOS, True, special=True),
    "822": token("<S1>", True, special=False),
    "823": token("MyTok", False, special=False, lstrip=True, rstrip=True),
}

# special_tokens_map.json and tokenizer_config.json of each tokenizer; None: the file is not there.
TOKENIZERS = {
    "bare": [None, None],
    "first": [{"bos_token": BOS, "eos_token": EOS, "unk_token": EOS, "pad_token": EOS}, None],
    "second": [None, {"eos_token": EOS, "pad_token": "!", "model_max_length": LENGTH}],
    "flagged": [{**FLAGGED, "pad_token": "!"}, {"pad_token": "!", "model_max_length": LENGTH}],
    "map-wins": [{"pad_token": "!"}, {"pad_token": EOS}],
    "decoder": [{"pad_token": EOS}, {"added_tokens_decoder": DECODER, "pad_token": "!"}],
}

TEXTS = [
    "",
    " ",
    " \t\r\n\v\f ",
    "a",
    "A PHOTO of a Red CIRCLE",
    "  a   photo\tof\na\r\nred \u00a0 circle  ",
    "wow! it's a cat!! we'll, I'd, they've, don't, you're, I'm 'S 'LL",
    "it''s 'tis ''' rock'n'roll `quotes' \u2019s \u201csmart\u201d",
    "8k, 4K, 1920x1080, 3.14, 1/2, \u00bd \u00b2 \u2167 \u0663\u0664",
    "(red:1.2), [blue|green], {a:b}, <lora:x:0.8>, a_b-c.d/e\\f@g#h$i%j^k&l*m+n=o~p",
    "caf\u00e9 na\u00efve \u00fcber stra\u00dfe \u00d8re \u0141\u00f3d\u017a",
    "cafe\u0301 nai\u0308ve u\u0308ber a\u030angstrom \u1e9b\u0323",
    "\u0130stanbul I\u0307 \u0131 \u01c5 \u1e9e \ufb01ne \u212b \u2126",
    "\u039f\u0394\u039f\u03a3 \u03a3\u0391\u03a3. \u03a3",
    "\u4e00\u53ea\u7ea2\u8272\u7684\u732b \u3053\u3093\u306b\u3061\u306f "
    "\uc548\ub155\ud558\uc138\uc694 \u1112\u1161\u11ab",
    "\u041a\u0440\u0430\u0441\u043d\u044b\u0439 \u043a\u0440\u0443\u0433 "
    "\u05e2\u05d1\u05e8\u05d9\u05ea \u0627\u0644\u0639\u0631\u0628\u064a\u0629 "
    "\u0939\u093f\u0928\u094d\u0926\u0940 \u0e44\u0e17\u0e22",
    "\U0001f600 a cat \U0001f431\u200d\U0001f4bb \U0001f1eb\U0001f1f7 "
    "\U0001f44d\U0001f3fd \u2764\ufe0f",
    "\U0001d504\U0001d51f\U0001d520 \uff21\uff22\uff23\uff11\uff12 \u24b6\u2460",
    "&amp; &lt;b&gt; &#39;quoted&#39; &nbsp; &amp;amp; <b>bold</b>",
    "a\u0000b\u0001c\u001bd\u007fe\u0085f\u009fg",
    "zero\u200bwidth\u200djoin\u00adsoft\u2060word\ufeffbom",
    "!\ufeff! .\ufeff. \ufeff",
    "\u2003em\u2009thin\u3000wide\u2028line\u2029par\u180emongol\u1680ogham",
    "\ufffd \ue000 \U000f0000 \uffff \U0010fffd",
    "<|endoftext|>",
    "a <|endoftext|> b",
    "<|startoftext|>a cat<|endoftext|>!!",
    "a<|ENDOFTEXT|>b <|StartOfText|>",
    "<|endoftext|> <|endoftext |> <| endoftext|> |endoftext|",
    "!",
    "!!! cat! !a !!a a!b ! !",
    "x <s1> <S1>y MyTok mytok aMyTokb MYTOK  MyTok  end",
    "constructor toString hasOwnProperty valueOf",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
    "aaaaaaaa",
    "supercalifragilisticexpialidocious antidisestablishmentarianism",
    "a red circle " * 67,
    "cat " * 74,
    "cat " * 75,
    "cat " * 76,
    "9" * 200,
    "\U0001f431" * 40,
    "\u4e2d" * 60,
]


def open_tokenizer(folder, special_tokens_map, tokenizer_config):
    """The tokenizer of golden's vocabulary and merges with these two files beside them."""
    os.makedirs(folder)
    for name in ("vocab.json", "merges.txt"):
        shutil.copy(f"{GOLDEN}/{name}", folder)
    files = {"special_tokens_map": special_tokens_map, "tokenizer_config": tokenizer_config}
    for name, content in files.items():
        if content is not None:
            with open(f"{folder}/{name}.json", "w") as file:
                json.dump(content, file)
    return CLIPTokenizer.from_pretrained(folder)


def ids_to_eos(tokenizer, text):
    """What the pipeline gives the model, up to the EOS that ends it; padding follows."""
    plain = tokenizer(text, truncation=True, max_length=LENGTH).input_ids
    padded = tokenizer(text, padding="max_length", truncation=True, max_length=LENGTH).input_ids
    assert padded == plain + [tokenizer.pad_token_id] * (LENGTH - len(plain))
    return plain


def main():
    with tempfile.TemporaryDirectory() as root:
        tokenizers = {
            name: open_tokenizer(f"{root}/{name}", *files) for name, files in TOKENIZERS.items()
        }
    out = {
        "tokenizers": {
            name: {
                "special_tokens_map": files[0],
                "tokenizer_config": files[1],
                "pad": tokenizers[name].pad_token_id,
            }
            for name, files in TOKENIZERS.items()
        },
        "texts": [
            {"text": text, "ids": {name: ids_to_eos(t, text) for name, t in tokenizers.items()}}
            for text in TEXTS
        ],
    }
    for entry in out["texts"]:
        # Most tokenizers agree: the shared answer is written once.
        common = entry["ids"]["bare"]
        entry["ids"] = {
            name: ids for name, ids in entry["ids"].items() if name == "bare" or ids != common
        }
    with open(OUT, "w") as file:
        json.dump(out, file, separators=(",", ":"))
        file.write("\n")


main()
