"""A run that is killed again and again becomes what it would have become."""

import pytest

from tests.conftest import TinyRuns
from tests.pretrain.soak import soak


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_run_killed_at_random_moments_ends_with_the_same_weights(tiny: TinyRuns) -> None:
    done = soak(tiny, "soak", 6, seed=6)
    assert any("in a checkpoint write" in way for way in done), done
