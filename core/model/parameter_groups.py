"""How parameters are divided into groups, by the optimizer and in the estimate of memory.

In a step DeepSpeed casts the gradients of one group at a time to fp32. With a single group that takes 6 bytes
a parameter more than anything before it; with groups as here a fraction of that. A process's piece of a group
also stays below the 2^31 elements that bitsandbytes counts with. Much smaller groups would cost memory at
ZeRO 2 with bf16 gradients, where a process keeps the whole gradient of every weight that its piece begins or
ends in.
"""

from collections.abc import Sequence
from dataclasses import dataclass

LARGEST_GROUP = 1_000_000_000
"""Most elements of a group, unless a single parameter has more."""
LARGEST_PIECE = 250_000_000
"""Most elements of a process's piece of a group, with the same exception."""


@dataclass(frozen=True)
class Shape:
    """A parameter: its elements, and whether weight decay applies."""

    elements: int
    decayed: bool


def group_elements(processes: int) -> int:
    """Most elements of a group in a run that begins on this many processes."""
    return min(LARGEST_GROUP, LARGEST_PIECE * processes)


def parameter_groups(shapes: Sequence[Shape], most: int | None) -> list[list[int]]:
    """Indices of the parameters of each group, those with weight decay first. A group has at most `most`
    elements (None: any number), or is a single parameter."""
    groups: list[list[int]] = []
    for decayed in (True, False):
        elements = None
        for index, shape in enumerate(shapes):
            if shape.decayed != decayed:
                continue
            if elements is None or (most is not None and elements + shape.elements > most):
                groups.append([])
                elements = 0
            groups[-1].append(index)
            elements += shape.elements
    return groups
