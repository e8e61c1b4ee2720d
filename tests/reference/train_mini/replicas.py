"""Data parallel over threads of one process: each takes a share of the batch on one core.

Small networks gain little from several cores in one operation, and lose much where other programs
want a core too: whoever is late keeps all others spinning. Here threads meet once a step.
"""

import concurrent.futures
import copy

import torch


class Replicas:
    """Copies of a module that share its parameters' storage but not their gradients."""

    def __init__(self, module, count):
        self.module = module
        self.copies = [module]
        for _ in range(count - 1):
            other = copy.deepcopy(module)
            for theirs, ours in zip(other.parameters(), module.parameters()):
                theirs.data = ours.data
            self.copies.append(other)
        self.pool = concurrent.futures.ThreadPoolExecutor(
            count, initializer=lambda: torch.set_num_threads(1))

    def map(self, function, *arguments):
        """Runs function(...) for each set of arguments, each on a thread."""
        return list(self.pool.map(function, *arguments))

    def backward(self, loss_of, shares):
        """Mean loss of `loss_of(module, share)`, its gradients left in the module's parameters."""
        def work(module, share):
            loss = loss_of(module, share) / len(shares)
            loss.backward()
            return loss.item()

        losses = self.map(work, self.copies, shares)
        with torch.no_grad():
            for other in self.copies[1:len(shares)]:
                for ours, theirs in zip(self.module.parameters(), other.parameters()):
                    if theirs.grad is not None:
                        ours.grad = theirs.grad if ours.grad is None else ours.grad + theirs.grad
                    theirs.grad = None
        return sum(losses)
