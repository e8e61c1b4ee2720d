"""Trains by the denoiser's loss: steps, the running average of the weights, and checkpoints."""

import torch

from optimizer import Muon


class Training:
    """Of `networks`, a part of the replicas' module or all of it, whose checkpoints are `name`.

    The running average draws better than the last weights.
    """

    def __init__(self, pace, replicas, networks, name, ema_decay, **rates):
        self.pace, self.replicas = pace, replicas
        self.networks, self.name, self.ema_decay = networks, name, ema_decay
        self.optimizer = Muon(replicas.module, replicas.map, **rates)
        self.average = [p.detach().clone() for p in networks.parameters()]
        self.running = {}

    def resume(self, seed):
        """Goes on from the last checkpoint, with other noise."""
        state = self.pace.resume()
        if state:
            self.networks.load_state_dict(state[self.name])
            self.optimizer.load_state_dict(state["optimizer"])
            self.average = state["average"]
            torch.manual_seed(seed + self.pace.step)

    def run(self, loss_of, draw):
        """Until the pace is over; `draw` gives the next step's (width, height) and its shares."""
        while not self.pace.is_over:
            size, shares = draw()
            self.step(size, loss_of, shares)
            self.save(every=150)
        self.save()

    def step(self, size, loss_of, shares):
        pace, running = self.pace, self.running
        scale = pace.begin_step()
        loss = self.replicas.backward(loss_of, shares)
        self.optimizer.step(scale)
        with torch.no_grad():
            decay = min(self.ema_decay, (1 + pace.step) / (10 + pace.step))
            torch._foreach_lerp_(self.average, list(self.networks.parameters()), 1 - decay)
        running[size] = 0.98 * running.get(size, loss) + 0.02 * loss
        pace.tell_sometimes(" ".join(f"{w}x{h} {v:.4f}" for (w, h), v in running.items()))

    def save(self, every=0.0):
        self.pace.save({self.name: self.networks.state_dict(), "average": self.average,
                        "optimizer": self.optimizer.state_dict()}, every)


def load_average(networks, path):
    """The running average of the weights in a checkpoint."""
    average = torch.load(path, weights_only=False)["average"]
    with torch.no_grad():
        for parameter, value in zip(networks.parameters(), average):
            parameter.copy_(value)
    return networks
