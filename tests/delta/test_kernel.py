"""The compiled loops and numpy give the same bytes."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from delta import codec, legacy_rules
from delta.kernel import Kernel, load
from tests.conftest import ROOT

PATTERNS = np.arange(1 << 16, dtype=np.uint16)


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Kernel:
    """The kernel, compiled as by set-up."""
    if not shutil.which("cc"):
        pytest.skip("there is no C compiler")
    file = tmp_path_factory.mktemp("kernel") / "libkernel.so"
    subprocess.run(["bash", "setup.sh", "kernel", file], cwd=ROOT, check=True)
    kernel = load(file)
    assert kernel is not None
    return kernel


@given(
    st.sampled_from(codec.COMPILED),
    st.integers(0, 3000),
    st.integers(0, 1 << 30),
    st.sampled_from([0, 3, 16]),
)
@settings(max_examples=150, deadline=None)
def test_splitting_and_merging_agree_with_numpy(
    compiled: Kernel, dtype: str, elements: int, seed: int, bits: int
) -> None:
    rng = np.random.default_rng(seed)
    base = rng.integers(0, 1 << 16, elements, np.uint16)
    target = base ^ rng.integers(0, 1 << bits, elements, np.uint16)
    planes = compiled.split(target, base, *codec.EXPONENT[dtype])
    expected = codec.split(target.view("<i2"), base.view("<i2"), dtype)
    assert [plane.tobytes() for plane in planes] == [plane.tobytes() for plane in expected]
    low, high = (plane.tobytes() for plane in planes)
    assert (compiled.merge(low, high, base, *codec.EXPONENT[dtype]) == target).all()
    assert (codec.merge([low, high], base.view("<i2"), dtype).view(np.uint16) == target).all()


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("base_dtype", ["F16", "BF16"])
@pytest.mark.parametrize("seed", range(8))
def test_sums_agree_with_numpy_for_every_pattern(
    compiled: Kernel, base_dtype: str, sign: int, seed: int
) -> None:
    # The first seeds pair every pattern with small numbers, zeros and one. NaN with NaN is left out, because
    # processors may keep either payload.
    other = np.random.default_rng(seed).permutation(PATTERNS)
    other = (other & [0x03FF, 0x83FF, 0x0000, 0x3C00, 0xBFFF, 0xBFFF, 0xBFFF, 0xBFFF][seed]).astype(np.uint16)
    for half, base in ((PATTERNS, other), (other, PATTERNS)):
        made = compiled.add(half, base, base_is_bf16=base_dtype == "BF16", sign=sign).tobytes()
        with np.errstate(invalid="ignore"):
            assert made == legacy_rules.add(half.tobytes(), "F16", base.tobytes(), base_dtype, sign)


def test_a_file_that_cannot_be_loaded_is_left_alone(tmp_path: Path) -> None:
    assert load(tmp_path / "none.so") is None
    (tmp_path / "libkernel.so").write_bytes(b"of another machine")
    assert load(tmp_path / "libkernel.so") is None
