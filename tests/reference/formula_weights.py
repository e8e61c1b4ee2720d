"""Model weights from an integer hash, so that the wide fixture holds only key names and shapes.

src/bench/support/formula-weights.ts is the same formula: change both or neither; the checksums in
weights.json detect a difference. Every step is exact or one correctly rounded f32 operation, so the
two writers agree to the bit.
"""

import hashlib
import json
import math
import os
import struct

import numpy as np
import torch

DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def seed_of(text):
    """FNV-1a, 32 bits, of the UTF-8 bytes."""
    value = 0x811C9DC5
    for byte in text.encode():
        value = ((value ^ byte) * 0x01000193) & 0xFFFFFFFF
    return value


def uniform(seed, count):
    """f32 multiples of 2^-23 in [-1, 1): murmur3's finalizer over seed + i * golden ratio."""
    h = np.arange(count, dtype=np.uint32) * np.uint32(0x9E3779B9) + np.uint32(seed)
    h ^= h >> np.uint32(16)
    h *= np.uint32(0x85EBCA6B)
    h ^= h >> np.uint32(13)
    h *= np.uint32(0xC2B2AE35)
    h ^= h >> np.uint32(16)
    return (h >> np.uint32(8)).astype(np.float32) * np.float32(2**-23) - np.float32(1)


def formula_tensor(component, name, shape):
    """The f32 weight `name`: matrices preserve variance, norm weights are near 1, biases near 0."""
    u = uniform(seed_of(f"{component}/{name}"), math.prod(shape))
    if len(shape) > 1:
        amplitude = (
            0.25 if name.endswith("_embedding.weight") else math.sqrt(3 / math.prod(shape[1:]))
        )
        values = u * np.float32(amplitude)
    elif name.endswith(".weight"):
        values = np.float32(1) + u * np.float32(0.25)
    else:
        values = u * np.float32(0.125)
    return values.reshape(shape)


def write_file(path, component, dtype, shapes):
    """Writes one safetensors file of formula weights; returns its sha256 and data bytes."""
    header, blobs, offset = {"__metadata__": {"format": "pt"}}, [], 0
    for name, shape in shapes.items():
        tensor = torch.from_numpy(formula_tensor(component, name, shape)).to(DTYPES[dtype])
        blob = tensor.view(torch.uint8 if dtype == "F32" else torch.int16).numpy().tobytes()
        header[name] = {
            "dtype": dtype,
            "shape": list(shape),
            "data_offsets": [offset, offset + len(blob)],
        }
        blobs.append(blob)
        offset += len(blob)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    content = struct.pack("<Q", len(text)) + text + b"".join(blobs)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(content)
    return hashlib.sha256(content).hexdigest(), offset


def write_index(folder, stem, shards, data_bytes):
    """Writes `stem`.index.json, which maps each key to its shard."""
    weight_map = {name: file for file, shapes in shards.items() for name in shapes}
    index = {"metadata": {"total_size": data_bytes}, "weight_map": weight_map}
    with open(f"{folder}/{stem}.index.json", "w") as file:
        json.dump(index, file, separators=(",", ":"))
