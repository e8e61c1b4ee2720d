"""How long a stage trains, how its learning rate goes, when it rests, and what survives a stop.

Time is the process' own (processor seconds over threads), so that neither a busy machine nor a
stopped process changes the schedule.
"""

import os
import time

import torch

WARM_UP_STEPS = 40


class Pace:
    """A stage's clock. `minutes` in all, of which the last `fall` take the learning rate to zero.

    A file OUT/anneal with a number of minutes makes the fall begin now and last that long.
    """

    def __init__(self, out, stage, minutes, fall, threads, pause_file=None):
        self.out, self.stage, self.minutes, self.fall = out, stage, minutes, fall
        self.threads = threads
        self.pause_file = pause_file
        self.before, self.start = 0.0, time.process_time()
        self.step = 0
        self.saved = time.monotonic()
        self.told = 0.0

    @property
    def spent(self):
        """Minutes trained, over all starts."""
        return self.before + (time.process_time() - self.start) / 60 / self.threads

    @property
    def is_over(self):
        return self.spent >= self.minutes

    def begin_step(self):
        """Counts a step and gives the share of the full learning rate."""
        while self.pause_file and os.path.exists(self.pause_file):
            time.sleep(1)
        self.step += 1
        asked = os.path.join(self.out, "anneal")
        if self.step % 10 == 0 and os.path.exists(asked):
            with open(asked) as file:
                self.fall = float(file.read())
            os.remove(asked)
            self.minutes = self.spent + self.fall
            self.tell(f"falls to zero in {self.fall:.1f} minutes")
        left = max(0.0, self.minutes - self.spent)
        return min(1.0, self.step / WARM_UP_STEPS, left / self.fall)

    def tell(self, text):
        print(f"{self.stage} step {self.step} minute {self.spent:.2f}/{self.minutes:.1f} {text}",
              flush=True)

    def tell_sometimes(self, text, every=20):
        """Prints at most once in `every` seconds."""
        if time.monotonic() - self.told > every:
            self.told = time.monotonic()
            self.tell(text)

    @property
    def path(self):
        return os.path.join(self.out, f"{self.stage}.pt")

    def save(self, state, every=0.0):
        """Writes a checkpoint whole or not at all, at most once in `every` seconds."""
        if time.monotonic() - self.saved < every:
            return
        self.saved = time.monotonic()
        state = {**state, "spent": self.spent, "step": self.step, "fall": self.fall,
                 "minutes": self.minutes}
        torch.save(state, f"{self.path}.part")
        os.replace(f"{self.path}.part", self.path)

    def resume(self):
        """The last checkpoint, or None. A larger `minutes` than before trains on."""
        if not os.path.exists(self.path):
            return None
        state = torch.load(self.path, weights_only=False)
        self.before, self.step = state["spent"], state["step"]
        return state
