"""Muon for the matrices, AdamW for the rest: on short trainings the pair gets much further.

Muon (Jordan et al., 2024): the momentum of a matrix is replaced with the nearest orthogonal one, by
five Newton-Schulz steps. Matrices of one shape are stepped together.
"""

import collections

import torch


def orthogonal(g):
    """The nearest orthogonal matrices of (count, rows, columns), roughly."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = g.bfloat16()
    tall = x.shape[1] > x.shape[2]
    x = x.mT if tall else x
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(5):
        s = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(s, s, s, beta=b, alpha=c), x, beta=a)
    return (x.mT if tall else x).float()


class Muon:
    """The optimizer's state is `state_dict()`; `step(scale)` scales both learning rates."""

    def __init__(self, module, run, rate=0.012, plain_rate=1.5e-3, decay=0.01):
        """`run(function, arguments)` calls the function for each argument, on some threads."""
        named = [(n, p) for n, p in module.named_parameters() if p.requires_grad]
        self.run = run
        self.rate, self.decay, self.momentum = rate, decay, 0.95
        self.groups = collections.defaultdict(list)
        plain = []
        for name, parameter in named:
            if is_matrix(name, parameter):
                rows = parameter.shape[0]
                self.groups[rows, parameter.numel() // rows].append(parameter)
            else:
                plain.append(parameter)
        self.buffers = {shape: torch.zeros(len(group), *shape)
                        for shape, group in self.groups.items()}
        self.plain = torch.optim.AdamW(plain, lr=plain_rate, betas=(0.9, 0.98), weight_decay=0.0)
        self.plain_rate = plain_rate
        self.parameters = [parameter for _, parameter in named]

    @torch.no_grad()
    def step(self, scale):
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.run(lambda shape: self.step_group(shape, self.rate * scale), list(self.groups))
        for group in self.plain.param_groups:
            group["lr"] = self.plain_rate * scale
        self.plain.step()
        for parameter in self.parameters:
            parameter.grad = None

    @torch.no_grad()
    def step_group(self, shape, rate):
        rows, columns = shape
        group = self.groups[shape]
        grad = torch.stack([zero_if_none(p).reshape(rows, columns) for p in group])
        buffer = self.buffers[shape].lerp_(grad, 1 - self.momentum)
        update = orthogonal(grad.lerp(buffer, self.momentum))
        factor = rate * max(1.0, rows / columns) ** 0.5
        for parameter, one in zip(group, update):
            parameter.mul_(1 - rate * self.decay)
            parameter.add_(one.view_as(parameter), alpha=-factor)

    def state_dict(self):
        return {"buffers": self.buffers, "plain": self.plain.state_dict()}

    def load_state_dict(self, state):
        self.buffers = state["buffers"]
        self.plain.load_state_dict(state["plain"])


def is_matrix(name, parameter):
    edges = ("embedding", "conv_in", "conv_out", "quant_conv")
    return parameter.ndim >= 2 and not any(edge in name for edge in edges)


def zero_if_none(parameter):
    return parameter.grad if parameter.grad is not None else torch.zeros_like(parameter)
