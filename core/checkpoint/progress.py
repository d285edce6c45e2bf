"""The state of a run that a checkpoint stores in addition to weights and optimizer."""

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass
class Progress:
    """What an exact resume needs in addition to weights and optimizer: the keys of progress.json."""

    step: int = 0
    """Optimizer steps done, including skipped ones."""
    samples: int = 0
    """Samples consumed: the position in the data order."""
    tokens: int = 0
    """Tokens trained on."""
    skipped_steps: int = 0
    """Steps that were not applied: gradients or a loss that were not finite, and spikes."""
    skipped: list[list[int]] = field(default_factory=list)
    """Their samples: ranges [first, last + 1] of positions in the data order."""
    skipped_shares: dict[str, float] = field(default_factory=dict)
    """The share of each source's samples so far that were in skipped steps."""
    recent: list[list[float]] = field(default_factory=list)
    """[loss, gradient norm] of the last applied steps, which new steps are compared with."""
    outliers: list[list[float]] = field(default_factory=list)
    """[step, loss, gradient norm] of the last steps far above those; of high losses in a row the first."""
    last_high_loss: int = 0
    """The last step whose loss was far above those."""
    first_loss: dict[str, float] = field(default_factory=dict)
    """The loss of each held-out text at the first validation, which forgetting is measured against."""
    best_loss: float | None = None
    """The lowest validation loss so far, if the best model is kept; `best_step` is its step."""
    best_step: int = 0
    looks_without_gain: int = 0
    """Validations since then."""
    ended: bool = False
    """The run ended before its last step: the validation loss no longer falls."""
    group_elements: int | None = None
    """Most elements of the optimizer's parameter groups, of which DeepSpeed's files hold one state each. None
    in runs from before there was a limit."""

    def advance(self, tokens: int, samples: int) -> None:
        """Count a step that trained on `tokens`, after which `samples` are consumed."""
        self.step, self.samples, self.tokens = self.step + 1, samples, self.tokens + tokens

    def counts(self) -> dict[str, Any]:
        """The counts for a manifest."""
        counts = asdict(self)
        unsaid = ["recent", "outliers", "last_high_loss", "group_elements"]
        for name in [*unsaid, *([] if self.skipped else ["skipped_shares"])]:
            del counts[name]
        return counts
