"""Keeps recorded tensors small: every n-th element, and the norms of all of them in blocks.

src/bench/support/references.ts reads what this writes. A tensor of more than 512 elements becomes
`name%N` (every N-th element of the flat tensor, N prime, so that no row or channel is left out)
and `name#1024` (the 2-norm of each 1024 consecutive elements, in f64, stored as f32). A relative
error of the whole is, statistically, that of the kept elements, and the vector of norms cannot
differ by more than the whole does: the whole's tolerance applies to both.

Inputs are formulas (formula_weights.py), so that they need not be stored.
"""

import math

import torch
from formula_weights import seed_of, uniform

KEPT = 512
BLOCK = 1024


def stride_of(count, most):
    """The smallest prime that leaves at most so many elements."""
    stride = -(-count // most)
    while any(stride % factor == 0 for factor in range(2, math.isqrt(stride) + 1)):
        stride += 1
    return stride


def thin(tensors, most=KEPT, block=BLOCK):
    kept = {}
    for name, tensor in tensors.items():
        flat = tensor.detach().float().flatten()
        if flat.numel() <= most:
            kept[name] = tensor
            continue
        stride = stride_of(flat.numel(), most)
        kept[f"{name}%{stride}"] = flat[::stride]
        norms = [part.double().norm() for part in flat.split(block)]
        kept[f"{name}#{block}"] = torch.stack(norms).float()
    return kept


def formula_input(name, shape, amplitude):
    """Uniform numbers in [-amplitude, amplitude), the same in src/bench/support/references.ts."""
    values = torch.from_numpy(uniform(seed_of(name), math.prod(shape))).reshape(shape)
    return values * torch.tensor(amplitude, dtype=torch.float32)
