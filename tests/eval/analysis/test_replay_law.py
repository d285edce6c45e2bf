"""Laws of the replay share: found again in data made from them, refused in data from neither."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from eval.analysis.replay_law import best_fit, fit_replay, predict
from eval.metrics.measure import Floats

Loss = Callable[[Floats], Floats]
FIVE = (0.0, 0.05, 0.1, 0.25, 0.5)
SEVEN = (0.0, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75)


def cpt_general(r: Floats) -> Floats:
    return 0.9 + 0.02 / (r + 0.08)


def cpt_domain(r: Floats) -> Floats:
    return 0.7 + 0.05 / (1 - r + 0.2)


def cmr_general(r: Floats) -> Floats:
    return 0.95 + 0.25 * (1 - r) ** 6


def cmr_domain(r: Floats) -> Floats:
    return 0.9 - 0.3 * (1 - r) ** 0.4


def bump(r: Floats) -> Floats:
    return np.asarray(1 + 0.05 * np.exp(-(((r - 0.25) / 0.1) ** 2)))


def step(r: Floats) -> Floats:
    return np.where(r > 0.22, 1.0, 1.1)


def made(draw: np.random.Generator, loss: Loss, shares: Sequence[float], seeds: int = 4) -> Floats:
    """Losses (shares, seeds): each seed moves all of them, and each has its own noise of 0.003."""
    of_seed, rest = draw.standard_normal((1, seeds)), draw.standard_normal((len(shares), seeds))
    return np.asarray(loss(np.asarray(shares))[:, None] + 0.02 * of_seed + 0.003 * rest)


LAWS = [("general", cpt_general), ("domain", cpt_domain), ("general", cmr_general), ("domain", cmr_domain)]


@pytest.mark.parametrize(("loss", "truth"), LAWS, ids=lambda each: getattr(each, "__name__", each))
@pytest.mark.parametrize("shares", [FIVE, SEVEN], ids=["5", "7"])
def test_a_law_that_holds_fits_and_predicts_what_was_not_tried(
    loss: str, truth: Loss, shares: Sequence[float]
) -> None:
    draw, refused, missed = np.random.default_rng(0), [], []
    between = np.asarray([0.15, 0.3, 0.45])
    for _ in range(12):
        values = made(draw, truth, shares)
        fit = best_fit(loss, np.asarray(shares), values)
        refused.append(fit.fits() is False)
        own = between if loss == "general" else 1 - between
        shift = values.mean() - truth(np.asarray(shares)).mean()
        missed.append(predict(fit.law, fit.constants[None], own)[0] - shift - truth(between))
    assert np.mean(refused) <= 0.25
    assert np.sqrt(np.square(missed).mean()) < 0.004


def test_the_laws_are_told_apart() -> None:
    draw = np.random.default_rng(0)
    for truth, name in ((cpt_general, "D-CPT"), (cmr_general, "CMR")):
        names = [best_fit("general", np.asarray(SEVEN), made(draw, truth, SEVEN)).law.name for _ in range(6)]
        assert names.count(name) >= 5


@pytest.mark.parametrize("truth", [bump, step])
@pytest.mark.parametrize("shares", [(0.0, 0.1, 0.25, 0.5), FIVE, SEVEN], ids=["4", "5", "7"])
def test_data_from_neither_law_does_not_fit(truth: Loss, shares: Sequence[float]) -> None:
    draw = np.random.default_rng(0)
    for _ in range(5):
        losses = {"general": made(draw, truth, shares), "domain": made(draw, cpt_domain, shares)}
        found = fit_replay(shares, losses)
        assert found["laws"]["general"]["fits"] is False
        assert "general loss: the " in found["said"]
        assert "does not fit" in found["said"]
        assert found["recommended"]["by"] == "the shares tried"
        assert found["recommended"]["share"] in shares


def test_the_share_that_is_recommended_keeps_the_general_loss() -> None:
    grid = np.linspace(0, 0.5, 5001)
    for worse in (0.01, 0.05):
        truth = grid[cpt_general(grid) <= (1 + worse) * cpt_general(grid).min()].min()
        draw, held = np.random.default_rng(1), []
        for _ in range(15):
            losses = {"general": made(draw, cpt_general, FIVE), "domain": made(draw, cpt_domain, FIVE)}
            found = fit_replay(FIVE, losses, worse)["recommended"]
            if found["by"] == "the laws":
                held.append(found["low"] - 0.0025 <= truth <= found["high"] + 0.0025)
                assert found["share"] == pytest.approx(truth, abs=0.06)
        assert len(held) >= 11
        assert np.mean(held) >= 0.85


def test_each_share_left_out_is_shown_against_what_was_seen() -> None:
    values = made(np.random.default_rng(0), cpt_general, FIVE)
    found = fit_replay(FIVE, {"general": values, "domain": values[::-1]})
    levels = found["laws"]["general"]["levels"]
    assert [level["share"] for level in levels] == list(FIVE)
    for level in levels:
        assert level["error"] == pytest.approx(level["seen"] - level["left_out"])
        assert level["low"] <= level["fitted"] <= level["high"]
        assert abs(level["error"]) < 4 * level["expected_error"]
    rms = np.sqrt(np.mean([level["error"] ** 2 for level in levels]))
    assert found["laws"]["general"]["error"] == pytest.approx(rms)


def test_too_few_shares_and_one_seed_are_said() -> None:
    draw = np.random.default_rng(0)
    few = {loss: made(draw, cpt_general, FIVE[:3]) for loss in ("general", "domain")}
    found = fit_replay(FIVE[:3], few)
    assert found["laws"] == {}
    assert found["said"] == "3 shares are too few for a law: it takes 4 or more."
    one = {loss: made(draw, cpt_general, FIVE, seeds=1) for loss in ("general", "domain")}
    found = fit_replay(FIVE, one)
    assert found["laws"]["general"]["fits"] is None
    assert "with one seed nothing says whether that is noise" in found["said"]
    assert found["recommended"]["low"] is None


def test_the_order_of_shares_changes_nothing() -> None:
    draw = np.random.default_rng(0)
    losses = {"general": made(draw, cpt_general, FIVE), "domain": made(draw, cpt_domain, FIVE)}
    order = [2, 0, 4, 1, 3]
    shuffled = {loss: values[order] for loss, values in losses.items()}
    assert fit_replay([FIVE[i] for i in order], shuffled) == fit_replay(FIVE, losses)


def test_losses_that_are_all_alike_fit_and_say_nothing_more() -> None:
    flat = np.full((5, 3), 0.8)
    found = fit_replay(FIVE, {"general": flat, "domain": flat})
    assert all(tree["fits"] for tree in found["laws"].values())
    assert found["recommended"]["share"] == 0
