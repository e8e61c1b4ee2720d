"""A CLIP-style byte-pair tokenizer learnt from the words of the scenes, as diffusers' files."""

import collections
import json
import os

from scenes import COUNT_WORDS, FLAWS, PLURALS, RELATION_WORDS
from things import COLOURS, THINGS

# Words that no caption has, but that people try: they get pieces of their own.
OTHER_WORDS = """photo small large big tiny bright dark background in on by under the a an and of to
sky sea sand grass desert snow night day sunset rain falling nothing drawing picture painting at
sun cloud cloudy sunny balloon mountain dog bird car ugly deformed noisy soft sharp city street
good quality""".split()


def words():
    found = [*COLOURS, *THINGS, *COUNT_WORDS.values(), *FLAWS, *PLURALS.values(), *OTHER_WORDS]
    found += [f"{thing}s" for thing in THINGS if thing not in PLURALS]
    found += [word for ways in RELATION_WORDS.values() for way in ways for word in way.split()]
    return sorted(set(found))


def byte_alphabet():
    """CLIP's printable stand-ins for the 256 bytes."""
    kept = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [byte for byte in range(256) if byte not in kept]
    return [chr(byte) for byte in kept] + [chr(256 + index) for index in range(len(rest))]


def merged(pieces, pair):
    out, at = [], 0
    while at < len(pieces):
        if pieces[at:at + 2] == pair:
            out.append(pair[0] + pair[1])
            at += 2
        else:
            out.append(pieces[at])
            at += 1
    return tuple(out)


def train():
    """(vocabulary, merges): merged until every word is one token."""
    corpus = {word: (*word[:-1], f"{word[-1]}</w>") for word in words()}
    merges = []
    while True:
        pairs = collections.Counter(
            pair for pieces in corpus.values() for pair in zip(pieces, pieces[1:]))
        if not pairs:
            break
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        corpus = {word: merged(pieces, best) for word, pieces in corpus.items()}
    alphabet = byte_alphabet()
    tokens = alphabet + [f"{one}</w>" for one in alphabet] + ["".join(pair) for pair in merges]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    return {token: index for index, token in enumerate(tokens)}, merges


def write(folder, vocabulary, merges, pad):
    os.makedirs(folder, exist_ok=True)
    special = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>",
               "unk_token": "<|endoftext|>", "pad_token": pad}
    config = {**special, "model_max_length": 77, "do_lower_case": True, "errors": "replace",
              "add_prefix_space": False, "tokenizer_class": "CLIPTokenizer"}
    files = {
        "vocab.json": json.dumps(vocabulary, ensure_ascii=False),
        "merges.txt": "#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges),
        "tokenizer_config.json": json.dumps(config, indent=2) + "\n",
        "special_tokens_map.json": json.dumps(special, indent=2) + "\n",
    }
    for name, text in files.items():
        with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
            file.write(text)
