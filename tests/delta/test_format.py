"""A reader written from docs/delta.md alone, which uses nothing from delta."""

import hashlib
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zstandard

from tests.conftest import run
from tests.delta.models import random_model, save, tuned

EXPONENTS = {"BF16": (7, 0xFF), "F16": (10, 0x1F), "F32": (23, 0xFF)}
Integers = np.ndarray[Any, np.dtype[np.int64]]
SIZES = {"BF16": 2, "F16": 2, "F32": 4}


def header(data: bytes) -> tuple[dict[str, Any], int]:
    """A safetensors header, and the offset of the data after it."""
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length]), 8 + length


def tensors(folder: Path) -> dict[str, bytes]:
    """The bytes of each tensor in a folder's safetensors files."""
    found = {}
    for file in folder.glob("*.safetensors"):
        data = file.read_bytes()
        entries, start = header(data)
        for name, entry in entries.items():
            if name != "__metadata__":
                first, end = entry["data_offsets"]
                found[name] = data[start + first : start + end]
    return found


def decode(payload: bytes, base: bytes, elements: int, dtype: str, chunk: int) -> bytes:
    """The section about payloads, step by step, in 64-bit integers."""
    size = SIZES[dtype]
    bits = 8 * size
    shift, mask = EXPONENTS[dtype]
    most = chunk * 2 // size

    def m(x: Integers) -> Integers:
        turned: Integers = x ^ ((x >> (bits - 1)) & (2 ** (bits - 1) - 1))
        return turned

    def chunks() -> Iterator[bytes]:
        at = 0
        for first in range(0, elements, most):
            count = min(most, elements - first)
            lengths = struct.unpack_from(f"<{size}I", payload, at)
            at += 4 * size
            code = np.zeros(count, np.int64)
            for k, length in enumerate(lengths):
                plane = zstandard.ZstdDecompressor().decompress(payload[at : at + length])
                code += np.frombuffer(plane, np.uint8).astype(np.int64) << (8 * k)
                at += length
            here = base[first * size : (first + count) * size].ljust(count * size, b"\0")
            b = np.frombuffer(here, f"<i{size}").astype(np.int64)
            order = np.argsort((b >> shift) & mask, kind="stable")
            d = np.empty(count, np.int64)
            d[order] = (code >> 1) ^ -(code & 1)
            around = (m(b) + d + 2 ** (bits - 1)) % 2**bits - 2 ** (bits - 1)
            yield m(around).astype(f"<i{size}").tobytes()

    return b"".join(chunks())


@pytest.mark.parametrize("dtype", ["BF16", "F32"])
def test_a_reader_written_from_the_page_gets_the_same_files(tmp_path: Path, dtype: str) -> None:
    base = random_model(dtype)
    rng = np.random.default_rng(2)
    target = tuned(base, 45)
    target["model.new.weight"] = (
        dtype,
        rng.integers(0, 60_000, (7, 3)).astype(base["model.norm.weight"][1].dtype),
    )
    save(tmp_path / "base", base, 2)
    save(tmp_path / "target", target, 2)
    folder = tmp_path / "delta"
    done = run(
        "delta", "make", "--base", tmp_path / "base", "--target", tmp_path / "target", "--delta", folder
    )
    assert done.returncode == 0, done.stderr
    plan = json.loads((folder / "delta.json").read_text("utf-8"))
    assert (plan["format"], plan["version"]) == ("patent-llama delta", 2)
    own = plan.pop("sha256")
    canonical = json.dumps(plan, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    assert hashlib.sha256(canonical).hexdigest() == own
    payloads, bases = tensors(folder), tensors(tmp_path / "base")
    for shard, text in plan["shards"].items():
        made = len(text.encode()).to_bytes(8, "little") + text.encode()
        entries = {name: entry for name, entry in json.loads(text).items() if name != "__metadata__"}
        for name in sorted(entries, key=lambda name: entries[name]["data_offsets"]):
            entry = plan["tensors"][name]
            before = b"" if entry["mode"] == "full" else bases[name]
            if entry["mode"] == "same":
                made += before
                continue
            assert hashlib.sha256(payloads[name]).hexdigest() == entry["payload_sha256"]
            elements = int(np.prod(entry["shape"]))
            made += decode(payloads[name], before, elements, dtype, plan["chunk_elements"])
        assert made == (tmp_path / "target" / shard).read_bytes()
    assert {entry["mode"] for entry in plan["tensors"].values()} == {"same", "delta", "full"}
    for name, stored in plan["files"].items():
        data = (folder / name).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (stored["bytes"], stored["sha256"])
