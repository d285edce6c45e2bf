"""The best model is that of the lowest finite loss."""

import math
from unittest.mock import Mock

import pytest

from core.checkpoint.progress import Progress
from core.train.early_stopping import Best

NAN, INF = math.nan, math.inf


@pytest.mark.parametrize(
    ("losses", "kept"),
    [
        ([3.0, 2.0, 2.5], [1, 2]),
        ([NAN, 2.0, NAN, 1.0], [2, 4]),
        ([INF, NAN], []),
        ([2.0, NAN, INF, 2.0], [1]),
    ],
)
def test_only_a_finite_loss_is_the_best(losses: list[float], kept: list[int]) -> None:
    saved: list[int] = []
    told = iter([5.0, *losses])
    best = Best(lambda _: {"validation_loss": next(told)}, lambda p: saved.append(p.step), None, Mock())
    progress = Progress()
    for step in range(len(losses) + 1):
        progress.step = step
        best(progress)
    assert saved == kept
    assert progress.best_step == (kept[-1] if kept else 0)


def test_a_nan_that_an_older_run_kept_as_the_best_is_replaced() -> None:
    progress = Progress(step=4, best_loss=NAN, best_step=2)
    Best(lambda _: {"validation_loss": 3.0}, None, None, Mock())(progress)
    assert (progress.best_loss, progress.best_step) == (3.0, 4)


def test_patience_counts_losses_that_are_not_finite() -> None:
    progress, best = Progress(step=1), Best(lambda _: {"validation_loss": NAN}, None, 2, Mock())
    for progress.step in (1, 2):
        best(progress)
    assert progress.ended
