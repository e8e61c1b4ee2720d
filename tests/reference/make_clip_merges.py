"""Writes src/assets/clip/merges.br from the vocabulary of the package open_clip_torch; the format is
in src/assets/clip/README.md. Needs the package brotli.

    pip download --no-deps open-clip-torch && unzip -o open_clip_torch-*.whl
    python tests/reference/make_clip_merges.py open_clip/bpe_simple_vocab_16e6.txt.gz
"""

import gzip
import sys
from pathlib import Path

import brotli

MERGE_COUNT = 48_894


def main() -> None:
    with gzip.open(sys.argv[1]) as file:
        # The first line is a header; CLIP uses the first of 262,144 merges.
        merges = file.read().decode().split("\n")[1 : 1 + MERGE_COUNT]
    codes = [*range(33, 127), *range(161, 173), *range(174, 256)]
    codes += [256 + index for index in range(256 - len(codes))]
    tokens = [chr(code) for code in codes]
    tokens += [f"{token}</w>" for token in tokens]
    ids = {token: index for index, token in enumerate(tokens)}
    planes = [bytearray() for _ in range(4)]
    for merge in merges:
        left, right = merge.split(" ")
        numbers = [ids[left] & 255, ids[left] >> 8, ids[right] & 255, ids[right] >> 8]
        for plane, number in zip(planes, numbers):
            plane.append(number)
        ids[left + right] = len(ids)
    compressed = brotli.compress(b"".join(planes), quality=11, lgwin=24)
    target = Path(__file__).parents[2] / "src" / "assets" / "clip" / "merges.br"
    target.write_bytes(compressed)
    print(f"{len(merges)} merges, {len(ids)} tokens, {len(compressed)} bytes")


main()
