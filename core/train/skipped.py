"""How much of each source of the data was in steps that were skipped: what the model has not learnt from.

A dataset of several sources has `source_counts`, the documents of each source, and `sources_at(index)`, those
in a sample. Without them, the parts of the mixture are the sources.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from core.checkpoint.progress import Progress
from core.train.sampler import Order

LOST_SHARE, LOST_SAMPLES = 0.5, 16
"""The share of a source's samples in skipped steps that may not be exceeded, and the number."""


class Skipped:
    """Counts the samples of each source in skipped steps."""

    def __init__(self, order: Order, data: Any, index: Callable[[int], int], progress: Progress) -> None:
        """`index` gives the sample of `data` at a position of `order`; `progress` has what was skipped."""
        self.order, self.data, self.index = order, data, index
        self._sources: Mapping[str, int] = getattr(data, "source_counts", {})
        self._counts: Counter[str] = Counter()
        for first, stop in progress.skipped:
            self._count(first, stop)

    def add(self, first: int, stop: int) -> dict[str, float]:
        """Count the samples at positions `first` to `stop`, up to which the run is; the share of each source
        that was skipped so far."""
        self._count(first, stop)
        return self.shares(stop)

    def shares(self, position: int) -> dict[str, float]:
        """The share of each source's documents before `position` that was in skipped steps. How many came up
        is taken from the epochs of the data, which is exact at the end of each."""
        epochs = self.order.epochs(position)
        if self._sources:
            gone = next(iter(epochs.values()))
            seen = {name: gone * n for name, n in self._sources.items()}
        else:
            seen = {part.name: epochs[part.name] * part.samples for part in self.order.parts}
        return {name: min(1.0, self._counts[name] / n) for name, n in seen.items() if n}

    def lost(self, shares: Mapping[str, float]) -> str | None:
        """The source of which more was skipped than may be, in words."""
        for name, share in shares.items():
            if share > LOST_SHARE and self._counts[name] >= LOST_SAMPLES:
                return f"{share:.0%} of what has come up of `{name}` was in skipped steps"
        return None

    def _count(self, first: int, stop: int) -> None:
        for position in range(first, stop):
            if self._sources:
                self._counts.update(self.data.sources_at(self.index(position)))
            else:
                self._counts[self.order.parts[self.order.at(position)[0]].name] += 1


def sentence(counts: Mapping[str, Any]) -> str | None:
    """What a run's `counts` (core/checkpoint/progress.py) say of skipped steps; None if there is none."""
    if not counts.get("skipped_steps"):
        return None
    samples = sum(stop - first for first, stop in counts["skipped"])
    text = (
        f"{counts['skipped_steps']:,} of {counts['step']:,} steps were skipped as spikes or not finite, with"
        f" {samples / max(1, counts['samples']):.1%} of the samples"
    )
    shares = counts.get("skipped_shares") or {}
    listed = ", ".join(f"{name} {share:.1%}" for name, share in shares.items())
    return f"{text} ({listed})" if len(shares) > 1 else text
