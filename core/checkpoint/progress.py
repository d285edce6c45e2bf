"""How far a run is: the state that a checkpoint stores beside weights and optimizer."""

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass
class Progress:
    """How far the run is: all that is needed, beside weights and optimiser, to go on exactly."""

    step: int = 0
    """Optimiser steps done, the skipped ones included."""
    samples: int = 0
    """Samples consumed: the position in the data order."""
    tokens: int = 0
    """Tokens trained on."""
    skipped_steps: int = 0
    """Steps that were not applied: gradients that were not finite, and spikes."""
    skipped: list[list[int]] = field(default_factory=list)
    """Their samples: [first, one after the last] of each range, as places in the data order."""
    recent: list[list[float]] = field(default_factory=list)
    """[loss, gradient norm] of the last applied steps, which spikes are measured against."""
    first_loss: dict[str, float] = field(default_factory=dict)
    """Each held-out text's loss when it was first looked at, which forgetting is measured against."""
    best_loss: float | None = None
    """The lowest validation loss so far, where the best model is kept, and `best_step`, where it was."""
    best_step: int = 0
    looks_without_gain: int = 0
    ended: bool = False
    """The run is over before its last step: the validation loss falls no more."""

    def advance(self, tokens: int, samples: int) -> None:
        """A step is done: it trained on `tokens`, and `samples` are consumed by now."""
        self.step, self.samples, self.tokens = self.step + 1, samples, self.tokens + tokens

    def counts(self) -> dict[str, Any]:
        """What a manifest says about it."""
        return {name: value for name, value in asdict(self).items() if name != "recent"}
