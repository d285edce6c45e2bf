"""A run that is killed again and again becomes what it would have become."""

import pytest

from tests.conftest import TinyRuns
from tests.pretrain.soak import soak


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("kills", [3, pytest.param(6, marks=pytest.mark.slow)])
def test_a_run_killed_at_random_moments_ends_with_the_same_weights(tiny: TinyRuns, kills: int) -> None:
    done = soak(tiny, f"soak-{kills}", kills, seed=kills)
    assert any("in a checkpoint write" in way for way in done), done
