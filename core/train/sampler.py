"""The data order: which sample of which source stands at which position of the run.

Several sources, as a domain corpus and general text to replay, share the run by given shares. Position after
position the source is drawn by Tijdeman's chairman assignment (Discrete Mathematics 32, 1980), so that at any
point each source has had its share to within one sample. A source gives its samples in a new permutation each
epoch, a pure function of (seed, source, epoch). A source that may not be repeated more often leaves its place
to the others, by their shares.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from numba import njit


@dataclass(frozen=True)
class Part:
    """One source of a mixture."""

    name: str
    samples: int
    share: float
    """Its share of the run's samples; all shares together are 1."""
    max_epochs: float | None = None
    """How often it may be gone through; None for no limit."""

    @property
    def limit(self) -> int | None:
        """The most samples that it may give."""
        return None if self.max_epochs is None else round(self.max_epochs * self.samples)


class Order:
    """Positions 0 to `total` of a run over one or several sources."""

    def __init__(self, parts: list[Part], total: int, seed: int) -> None:
        """Draw the source of every position; about 20 ns each."""
        self.parts, self.seed = parts, seed
        self.total = total
        self._epochs: dict[int, tuple[int, npt.NDArray[np.int64]]] = {}
        self._source = np.zeros(0, np.int8)
        self._place = np.arange(total)
        if len(parts) > 1 or parts[0].limit is not None:
            limits = np.array([total if part.limit is None else part.limit for part in parts])
            shares = np.array([part.share for part in parts])
            self._source = _assign(shares / shares.sum(), limits, total)
            self.total = len(self._source)
            self._place = np.empty(self.total, np.int64)
            for number in range(len(parts)):
                mine = self._source == number
                self._place[mine] = np.arange(mine.sum())

    def at(self, position: int) -> tuple[int, int]:
        """Source and sample in it at `position`."""
        source = int(self._source[position]) if len(self._source) else 0
        epoch, place = divmod(int(self._place[position]), self.parts[source].samples)
        known = self._epochs.get(source)
        if known is None or known[0] != epoch:
            generator = np.random.Generator(np.random.Philox(key=[self.seed, epoch + (source << 32)]))
            known = self._epochs[source] = (epoch, generator.permutation(self.parts[source].samples))
        return source, int(known[1][place])

    def epochs(self, position: int) -> dict[str, float]:
        """How often each source has been gone through before `position`."""
        if not len(self._source):
            return {self.parts[0].name: position / self.parts[0].samples}
        counts = np.bincount(self._source[:position], minlength=len(self.parts))
        return {part.name: int(n) / part.samples for part, n in zip(self.parts, counts, strict=True)}

    def numbers(self, position: int) -> dict[str, float]:
        """The columns of a log step: the epochs of each source; none where there is one source only."""
        return (
            {f"epochs_{name}": n for name, n in self.epochs(position).items()} if len(self.parts) > 1 else {}
        )

    def report(self) -> list[str]:
        """What the whole run takes from each source, as lines; none where there is one source only."""
        if len(self.parts) == 1:
            return []
        return [
            f"mixture: {part.name}: {n * part.samples / max(1, self.total):.2%} of the run (asked:"
            f" {part.share:.2%}), {n:.2f} epochs of {part.samples:,} blocks"
            + (", its limit" if part.limit is not None and round(n * part.samples) == part.limit else "")
            for part, n in zip(self.parts, self.epochs(self.total).values(), strict=True)
        ]


@njit(cache=True)
def _assign(
    shares: npt.NDArray[np.float64], limits: npt.NDArray[np.int64], total: int
) -> npt.NDArray[np.int8]:
    """The source of every position; shorter than `total` where all sources have reached their limits.

    `due` is what each source should have had by now less what it has had; Tijdeman takes, among those that
    are due by 1 / (2k - 2) or more, the one whose time is up first. `due` stays between -1 and 1 then.
    """
    chosen = np.empty(total, np.int8)
    left, rates, due = limits.copy(), shares.copy(), np.zeros(len(shares))
    for source in range(len(shares)):
        if left[source] <= 0:
            rates[source] = 0.0
    for position in range(total):
        if rates.sum() <= 0:
            return chosen[:position]
        rates /= rates.sum()
        due += rates
        active = np.sum(rates > 0)
        threshold = 1.0 / (2 * active - 2) if active > 1 else 0.0
        best, earliest = -1, np.inf
        for source in range(len(shares)):
            if rates[source] > 0 and due[source] >= threshold - 1e-9:
                time = (1 - threshold - due[source]) / rates[source]
                if time < earliest:
                    best, earliest = source, time
        if best < 0:  # only where a limit has just taken a source out: the one that is due most
            best = int(np.argmax(np.where(rates > 0, due, -np.inf)))
        chosen[position] = best
        due[best] -= 1
        left[best] -= 1
        if left[best] == 0:
            rest = due[best]
            due[best] = rates[best] = 0.0
            if rates.sum() > 0:
                due += rest * rates / rates.sum()
    return chosen
