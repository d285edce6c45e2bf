"""A delta in words: for `info`, for the README beside it, and for the manifest."""

from typing import Any

from delta.delta_format import Delta


def counts(delta: Delta) -> dict[str, Any]:
    """Tensors by mode, and bytes."""
    modes = [entry.mode for entry in delta.tensors.values()]
    return {
        "tensors": len(modes),
        **{mode: modes.count(mode) for mode in ("same", "delta", "full")},
        "target_bytes": target_bytes(delta),
        "payload_bytes": payload_bytes(delta),
    }


def payload_bytes(delta: Delta) -> int:
    """Bytes of all payloads."""
    return sum(entry.payload_bytes or 0 for entry in delta.tensors.values())


def target_bytes(delta: Delta) -> int:
    """Bytes of all of the target's tensors."""
    from math import prod

    from delta.codec import ITEMSIZE

    return sum(prod(entry.shape) * ITEMSIZE[entry.dtype] for entry in delta.tensors.values())


def describe(delta: Delta, place: str) -> str:
    """What `python -m delta info` prints."""
    number = counts(delta)
    dtypes = sorted({entry.dtype for entry in delta.tensors.values()})
    ratio = number["target_bytes"] / max(1, number["payload_bytes"])
    lines = [
        f"{place}: delta of {delta.target} to its base {delta.base}, exact (format version {delta.version})",
        f"  {number['tensors']:,} tensors ({', '.join(dtypes)}): {number['same']:,} as the base's,"
        f" {number['delta']:,} as a difference, {number['full']:,} whole",
        f"  {number['payload_bytes'] / 1e6:,.1f} MB for {number['target_bytes'] / 1e6:,.1f} MB"
        f" ({ratio:.1f}x)",
        f"  makes {', '.join([*delta.shards, *(name.removeprefix('files/') for name in delta.files)])}",
    ]
    grown = [
        f"  {name}: {(entry.base_shape or [0])[0]:,} rows in the base, {entry.shape[0]:,} in the target"
        for name, entry in delta.tensors.items()
        if entry.mode == "delta" and entry.base_shape != entry.shape
    ]
    return "\n".join([*lines, *grown, "apply it:", f"  {_command(delta, place)}"])


def publishing(delta: Delta) -> str:
    """The README.md of the delta's folder: a model card for the hub."""
    return f"""---
tags: [delta-weights]
---

# {delta.target}, as a delta to {delta.base}

This folder is not a model. It is what must be added to {delta.base} to get {delta.target}, bit for bit:
{payload_bytes(delta) / 1e6:,.1f} MB that make {target_bytes(delta) / 1e6:,.1f} MB. You need {delta.base} as
safetensors, under its own licence, and the code of patent-llama (Python 3.11 with numpy, pydantic and
zstandard; no GPU, no torch). In the folder of that code:

    {_command(delta, "THIS_FOLDER")}

Every tensor of the base is checked by its SHA-256 while it is read, and every tensor of the result; the
command ends with exit code 0 only when the result is exactly what was published.
`python -m delta verify --base BASE --delta THIS_FOLDER` does the same without writing;
`python -m delta info THIS_FOLDER` says what is inside.

<!-- Before you publish (hf upload ORGANISATION/NAME THIS_FOLDER): name the base's licence, what the model was
trained on, and what it is for. This page may be edited; no check depends on it. -->
"""


def _command(delta: Delta, place: str) -> str:
    return f"python -m delta apply --base {delta.base} --target {delta.target} --delta {place}"
