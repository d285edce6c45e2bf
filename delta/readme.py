"""Descriptions of a delta: for `info`, for its README, and for its manifest."""

import shlex
from typing import Any

from delta import whole
from delta.delta_format import Delta


def counts(delta: Delta) -> dict[str, Any]:
    """Numbers of tensors by mode, and bytes."""
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
    """Bytes of all tensors of the target."""
    from math import prod

    from delta.codec import ITEMSIZE

    return sum(prod(entry.shape) * ITEMSIZE[entry.dtype] for entry in delta.tensors.values())


def describe(delta: Delta, place: str) -> str:
    """What `python -m delta info` prints."""
    number = counts(delta)
    dtypes = sorted({entry.dtype for entry in delta.tensors.values()})
    ratio = number["target_bytes"] / max(1, number["payload_bytes"])
    lines = [
        f"{place}: exact delta from {delta.base} to {delta.target} (format version {delta.version})",
        f"  {number['tensors']:,} tensors ({', '.join(dtypes)}): {number['same']:,} unchanged,"
        f" {number['delta']:,} stored as differences, {number['full']:,} stored in full",
        f"  {number['payload_bytes'] / 1e6:,.1f} MB instead of {number['target_bytes'] / 1e6:,.1f} MB"
        f" ({ratio:.1f}x smaller)",
        *([f"  warning: {warning}"] if (warning := whole.warning(delta)) else []),
        f"  rebuilds {', '.join([*delta.shards, *(name.removeprefix('files/') for name in delta.files)])}",
    ]
    grown = [
        f"  {name}: {(entry.base_shape or [0])[0]:,} rows in the base, {entry.shape[0]:,} in the target"
        for name, entry in delta.tensors.items()
        if entry.mode == "delta" and entry.base_shape != entry.shape
    ]
    return "\n".join([*lines, *grown, "to apply it:", f"  {_command(delta, place)}"])


def publishing(delta: Delta) -> str:
    """The README.md of the delta's folder: a model card for the hub."""
    note = f"\n\n**Warning**: {warning}." if (warning := whole.warning(delta)) else ""
    return f"""---
tags: [delta-weights]
---

# {delta.target} as a delta to {delta.base}

This folder is not a model. It contains the difference between {delta.base} and {delta.target}
({payload_bytes(delta) / 1e6:,.1f} MB instead of {target_bytes(delta) / 1e6:,.1f} MB). Added to {delta.base},
it gives {delta.target}, bit for bit.{note}

You need

- {delta.base} in safetensors format, under its own licence;
- the code of patent-llama (Python 3.11 with numpy, pydantic and zstandard; no GPU and no torch).

Run this from the root of the patent-llama repository, with the paths of your folders:

    {_command(delta, "THIS_FOLDER")}

It checks the SHA-256 of every tensor, of the base while reading and of the result while writing. The exit
code is 0 only if the result is exactly the published model.

`python -m delta verify --base BASE --delta THIS_FOLDER` runs the same checks without writing anything;
`python -m delta info THIS_FOLDER` lists the contents.

<!-- Before you publish (hf upload ORGANISATION/NAME THIS_FOLDER): state the licence of the base, what the
model was trained on and what it is intended for. You may edit this page; no check depends on it. -->
"""


def _command(delta: Delta, place: str) -> str:
    base, target, place = map(shlex.quote, (delta.base, delta.target, place))
    return f"python -m delta apply --base {base} --target {target} --delta {place}"
