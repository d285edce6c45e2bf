"""Any bit pattern, dtype, shape and split into files survives the round trip."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import UserError
from delta import codec
from delta.apply import apply
from delta.make import make, stored_files
from delta.safetensors_io import ModelFolder
from tests.delta.models import NUMPY, Arrays, contents, save

SPECIAL = {  # -0.0, infinities, quiet and signalling NaNs with payloads, the smallest and largest subnormals
    "BF16": [0x8000, 0x7F80, 0xFF80, 0x7FC1, 0xFF81, 0x0001, 0x807F],
    "F16": [0x8000, 0x7C00, 0xFC00, 0x7E01, 0xFC01, 0x0001, 0x83FF],
    "F32": [0x80000000, 0x7F800000, 0xFF800000, 0x7FC00001, 0xFF800001, 1, 0x807FFFFF],
}


@st.composite
def pairs(draw: st.DrawFn) -> tuple[Arrays, Arrays, int, int]:
    """A base and a target that share some tensors, rows and values."""
    base: Arrays = {}
    target: Arrays = {}
    for number in range(draw(st.integers(1, 5))):
        dtype = draw(st.sampled_from(sorted(NUMPY)))
        shape = tuple(draw(st.lists(st.integers(0, 5), max_size=3)))
        rng = np.random.default_rng(draw(st.integers(0, 1000)))
        count = int(np.prod(shape)) * np.dtype(NUMPY[dtype]).itemsize
        values = np.frombuffer(rng.bytes(count), NUMPY[dtype]).reshape(shape).copy()
        if dtype in SPECIAL and values.size:
            values.reshape(-1)[:] = rng.choice(SPECIAL[dtype], values.size)
        kind = draw(st.sampled_from(["same", "other", "rows", "new", "type", "gone"]))
        name = f"{draw(st.sampled_from(['a', '模型', 'lm.head', 'x/y']))}.{number}"
        base[name] = (dtype, values)
        if kind == "other":
            values = values ^ rng.integers(0, 4, shape, NUMPY[dtype])
        if kind == "rows" and values.ndim:
            values = np.concatenate([values, values])[: draw(st.integers(0, 9))]
        if kind == "type":
            dtype, values = "U8", np.frombuffer(values.tobytes(), np.uint8)
        if kind == "new":
            del base[name]
        if kind != "gone":
            target[name] = (dtype, np.asarray(values))
    return base, target, draw(st.integers(1, 3)), draw(st.integers(1, 3))


@given(pairs())
@settings(max_examples=60, deadline=None)
def test_the_round_trip_is_exact(pair: tuple[Arrays, Arrays, int, int]) -> None:
    base, target, base_shards, target_shards = pair
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        save(place / "base", base, base_shards)
        save(place / "target", target, target_shards)
        files = stored_files(place / "target")
        sources = ModelFolder(place / "base"), ModelFolder(place / "target")
        make(
            *sources,
            place / "base",
            place / "target",
            place / "delta",
            files,
            shard_bytes=60,
            allow_whole=True,
        )
        apply(place / "base", place / "delta", place / "again")
        assert contents(place / "again") == contents(place / "target")


@given(st.binary(max_size=400), st.integers(0, 60), st.sampled_from(sorted(codec.ITEMSIZE)))
@settings(max_examples=200, deadline=None)
def test_bytes_that_are_no_payload_are_refused_or_decoded_never_worse(
    data: bytes, elements: int, dtype: str
) -> None:
    try:
        made = codec.decode(data, b"", elements, dtype)
    except UserError:
        return
    assert len(made) == elements * codec.ITEMSIZE[dtype]


@pytest.mark.parametrize("dtype", ["BF16", "F16"])
def test_every_pattern_against_every_kind_of_base(dtype: str) -> None:
    patterns = np.arange(1 << 16, dtype=np.uint16)
    for base in (patterns, patterns[::-1], np.roll(patterns, 1), patterns * 0):
        payload = codec.encode(patterns.tobytes(), base.tobytes(), dtype)
        assert codec.decode(payload, base.tobytes(), len(patterns), dtype) == patterns.tobytes()


def test_small_changes_take_few_bytes() -> None:
    rng = np.random.default_rng(0)
    base = (0.02 * rng.standard_normal(1 << 19)).astype(np.float16)
    target = (base + 0.0002 * rng.standard_normal(1 << 19)).astype(np.float16)
    assert len(codec.encode(target.tobytes(), base.tobytes(), "F16")) < 0.6 * base.nbytes


def test_the_order_of_numbers_is_the_order_of_integers() -> None:
    numbers = np.array([-np.inf, -3e38, -1, -1e-40, -0.0, 0.0, 1e-40, 1, np.inf], np.float32)
    ordered = codec._monotone(numbers.view(np.int32), "F32")
    assert (np.diff(ordered.astype(np.int64)) > 0).all()
