"""What a process holds of weights, gradients and optimizer states at each ZeRO stage, and what DeepSpeed adds
for a while: in the backward pass, where it reduces gradients, and in the optimizer's step.
"""

import math
from dataclasses import dataclass

from core.model.parameter_groups import Shape, parameter_groups

PERSISTENT = 100_000
"""At stage 3, weights of at most this many elements are whole on every process (DeepSpeed's default)."""
LIVE, PREFETCHED = 1_000_000_000, 50_000_000
"""At stage 3, most elements of gathered weights, and of those that are being gathered (its defaults)."""
REDUCED = 500_000_000
"""DeepSpeed reduces gradients that it does not partition once this many elements are together."""


@dataclass(frozen=True)
class Pieces:
    """What a process has of the flat groups at stages 1 and 2; of all processes the most."""

    flat: int
    """Elements of all groups, padded."""
    largest: int
    """Elements of the process's largest piece of a group."""
    touched: int
    """Elements of the parameters that its pieces begin, end or lie in."""
    longest: int
    """Elements of the longest part of a parameter in a piece."""


def pieces(groups: list[list[int]], processes: int) -> Pieces:
    """The pieces of `groups`, each the elements of its parameters in order."""
    sizes = [_aligned(sum(group), 2 * processes) // processes for group in groups]
    touched, longest = [0] * processes, 0
    for group, size in zip(groups, sizes, strict=True):
        start = 0
        for elements in group:
            for rank in range(start // size, -(-(start + elements) // size)):
                touched[rank] += elements
                part = min(start + elements, (rank + 1) * size) - max(start, rank * size)
                longest = max(longest, part)
            start += elements
    return Pieces(sum(sizes) * processes, max(sizes), max(touched), longest)


@dataclass(frozen=True)
class Zero:
    """How DeepSpeed partitions and reduces."""

    stage: int
    processes: int
    bf16: bool
    gradient_bytes: int
    """4 or 2 (deepspeed.gradient_dtype)."""
    bucket: int
    """Elements of a bucket of gradients."""
    overlap: bool
    """Whether gradients are reduced during the backward pass, which takes a second bucket."""
    group_elements: int | None
    """As for `parameter_groups`."""

    @property
    def wide(self) -> int:
        """Bytes of a weight."""
        return 2 if self.bf16 else 4

    @property
    def widened(self) -> bool:
        """Whether gradients are accumulated in fp32 beside bf16 weights."""
        return self.bf16 and self.gradient_bytes == 4


def held(shapes: list[Shape], zero: Zero) -> tuple[int, int, int]:
    """Bytes of weights, gradients and optimizer states after a backward pass, once states exist.

    Tested against live tensors at all stages.
    """
    elements, wide = sum(shape.elements for shape in shapes), zero.wide
    groups = _groups(shapes, zero)
    if zero.stage == 0:
        return wide * elements, 4 * elements, 8 * elements + 4 * len(shapes)
    steps = 4 * len(groups)
    if zero.stage == 3:
        mine = sum(_share(shape.elements, zero) for shape in shapes)
        whole = sum(s.elements for s in shapes if s.elements <= PERSISTENT) if zero.processes > 1 else 0
        return wide * (mine + whole), zero.gradient_bytes * mine, 12 * mine + steps
    found = pieces(groups, zero.processes)
    mine = found.flat // zero.processes
    if zero.stage == 2:
        gradients = 4 * mine if zero.widened else wide * found.touched
    else:
        gradients = (4 + wide) * elements if zero.widened else wide * elements
    return wide * found.flat, gradients, 12 * mine + steps


def passing(shapes: list[Shape], zero: Zero, micro_batches: int) -> tuple[int, int, int]:
    """Bytes beside `held` and activations: all through forward and backward, more while gradients are
    reduced, and in the optimizer's step.

    `micro_batches` go backward before a step. Tested against the storages that a CPU run makes and drops.
    """
    groups, wide = _groups(shapes, zero), zero.wide
    elements, largest = sum(s.elements for s in shapes), max(s.elements for s in shapes)
    apart, cast = zero.processes > 1, 6 if zero.gradient_bytes == 2 else 4  # a flat copy, then fp32
    together = min(max(zero.bucket, largest), elements)  # a larger gradient is reduced alone
    if zero.stage == 0:
        return 0, 0, 4 * _reduced([shape.elements for shape in shapes])
    if zero.stage == 3:
        share, most = _share(largest, zero), max(sum(_share(n, zero) for n in group) for group in groups)
        gathered, next_ones = (min(elements, n) if apart else 0 for n in (LIVE, PREFETCHED))
        arriving = 4 * _share(together, zero) if zero.widened else 0
        moving = wide * (largest + together) + arriving
        through, step = wide * (zero.bucket + gathered), wide * zero.bucket + max(8 * share, cast * most)
        return through, max(moving, wide * next_ones), step
    found = pieces(groups, zero.processes)
    norm = 8 * found.longest  # in fp64
    if zero.stage == 1 and zero.widened:
        return 0, 4 * largest, 6 * _reduced([sum(group) for group in groups])
    buckets = wide * zero.bucket * (2 if zero.overlap else 1)
    if zero.stage == 1:
        # gradients stay whole until the step, which copies those of this process
        return 0, buckets + wide * largest, max(buckets + wide * found.touched, norm, cast * found.largest)
    moving = wide * (largest + (together if apart else 0))
    if zero.widened:
        return 0, buckets + moving + 4 * found.longest, norm
    again = wide * found.touched if micro_batches > 1 else 0
    return 0, buckets + moving + again, max(norm, cast * found.largest)


def _groups(shapes: list[Shape], zero: Zero) -> list[list[int]]:
    """The elements of each parameter, by group."""
    return [[shapes[i].elements for i in g] for g in parameter_groups(shapes, zero.group_elements)]


def _share(elements: int, zero: Zero) -> int:
    """A process's share of a parameter at stage 3."""
    return -(-elements // zero.processes)


def _reduced(sizes: list[int]) -> int:
    """Elements of the largest flat copy in which tensors of these sizes are reduced."""
    largest = together = 0
    for size in sizes:
        together += size
        largest = max(largest, together)
        together = 0 if together > REDUCED else together
    return largest


def _aligned(elements: int, multiple: int) -> int:
    return math.ceil(elements / multiple) * multiple
