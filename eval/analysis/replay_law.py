"""The share of general data to replay, from small runs: published laws of both losses against the share.

    losses of (share, seed) ──least squares──▶ each law ──leave one share out──▶ the better law, does it fit?
    ──both losses──▶ the share with the least domain loss whose general loss is at most X% above its least

D-CPT law (Que et al. 2024, arXiv:2406.01375): L = E + A/N^a + B r^h/D^b + C/(r + e)^g, where r is the share
of the loss's own corpus: of general data for the general loss, of domain data for the domain loss. At one N
and one D, A is part of E. B r^h is left out, as a few shares cannot tell it from the last term. That leaves
E + C/(r + e)^g from 6 shares on, and with fewer g = 1.

CMR law (Gu et al. 2024, arXiv:2407.17467): losses are powers of the mixture ratio and of the tokens. At one
number of tokens L = b + a R^s, R being the share of domain data.

The constants that a loss is linear in follow from the others, which are found on a grid and from its best
starts by Nelder and Mead's method. Whether a law fits is tested: its error at the shares left out against
that in studies made from it with the seeds' noise. Seeds are paired: what moves all losses of a seed alike
is no noise.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from eval.analysis.trainings import LEAST, stretch
from eval.metrics.measure import Floats

FEWEST = 4
"""Shares that a law is fitted to."""
SHARES_FOR_FOUR = 6
"""Shares from which on the D-CPT law has its exponent g."""
LEVEL = 0.05
DRAWS = 1000
STARTS = 3
FLOOR = 1e-4
"""The noise of a loss is at least so much of it: a law that misses by less is good enough for any use."""
GRID = 201
"""Shares among which one is recommended."""

Tree = dict[str, Any]


class Law(NamedTuple):
    """A law with two linear constants: L = constant + factor × shape(share), the factor not negative."""

    name: str
    formula: str
    names: tuple[str, ...]
    """Of all constants: constant, factor, those of the shape."""
    shape: Callable[[Floats, Floats], Floats]
    """Its values (n, shares) for constants (n, k) and shares of the loss's own corpus."""
    grid: Floats
    """Constants of the shape to start from (n, k)."""


def _inverse(constants: Floats, shares: Floats) -> Floats:
    """1 / (r + e)^g, with g = 1 if it is not among the constants."""
    power = constants[:, 1:2] if constants.shape[1] > 1 else 1.0
    return np.asarray((shares[None] + constants[:, :1]) ** -power)


def _power(constants: Floats, shares: Floats) -> Floats:
    """How far a power of the other corpus's share is from its value at 1, upwards."""
    return np.asarray((1 - shares[None]) ** constants[:, :1])


def _falling(constants: Floats, shares: Floats) -> Floats:
    return np.asarray(-(shares[None] ** constants[:, :1]))


SHIFTS = np.geomspace(0.003, 10, 300)[:, None]
POWERS = np.geomspace(0.03, 50, 300)[:, None]
BOTH = np.stack(np.meshgrid(np.geomspace(0.003, 10, 40), np.geomspace(0.1, 8, 20)), axis=-1).reshape(-1, 2)


def laws(loss: str, shares: int) -> tuple[Law, ...]:
    """The laws of the `domain` or `general` loss for this number of shares."""
    own = "r" if loss == "general" else "(1 - r)"
    if shares >= SHARES_FOR_FOUR:
        cpt = Law("D-CPT", f"E + C/({own} + e)^g", ("E", "C", "e", "g"), _inverse, BOTH)
    else:
        cpt = Law("D-CPT, g = 1", f"E + C/({own} + e)", ("E", "C", "e"), _inverse, SHIFTS)
    if loss == "general":
        return cpt, Law("CMR", "b + a (1 - r)^s", ("b", "a", "s"), _power, POWERS)
    return cpt, Law("CMR", "b - a (1 - r)^s", ("b", "a", "s"), _falling, POWERS)


class Fit(NamedTuple):
    """A law's fit to losses at shares (r of general data)."""

    law: Law
    constants: Floats
    """In the order of `law.names`."""
    left_out: Floats
    """At each share, what the law predicts that is fitted to the other shares."""
    error: float
    """Root mean square of seen minus `left_out`."""
    p: float | None = None
    """How often studies made from the law, with the seeds' noise, miss their shares as much; None with one
    seed."""
    expected: Floats | None = None
    """By how much each share is missed in them."""
    noise: float | None = None
    """The noise of a mean over seeds."""

    def fits(self) -> bool | None:
        """None where the noise is not known."""
        return None if self.p is None else self.p >= LEVEL


def fit_replay(
    shares: Sequence[float],
    losses: Mapping[str, Floats],
    worse: float = 0.01,
    seed: int = 0,
) -> Tree:
    """The laws of the losses `domain` and `general`, each (shares, seeds), and the share they recommend.

    `laws`: for each loss `law`, `formula`, `constants`, `levels`, `error`, `noise`, `p`, `fits` (None where
    noise is not known), `said`. `recommended`: `share` with `low` and `high` over seeds, and `said`; it is
    one of the shares that were tried where a law does not fit. `worse` is the share by which the general
    loss may be above its least.
    """
    order = np.argsort(shares)
    at = np.asarray(shares, np.float64)[order]
    means = {loss: values[order] for loss, values in losses.items()}
    if len(at) < FEWEST:
        said = f"{len(at)} shares are too few for a law: it takes {FEWEST} or more."
        return {"laws": {}, "recommended": _tried(at, means, worse), "said": said}
    fits = {loss: best_fit(loss, at, values, seed) for loss, values in means.items()}
    trees = {loss: _described(loss, at, means[loss], fits[loss], seed) for loss in fits}
    if any(tree["fits"] is False for tree in trees.values()):
        recommended = _tried(at, means, worse)
    else:
        recommended = _recommended(at, means, fits, worse, seed)
    return {"laws": trees, "recommended": recommended, "said": " ".join(t["said"] for t in trees.values())}


def best_fit(loss: str, shares: Floats, values: Floats, seed: int = 0) -> Fit:
    """The law with the least error at the shares left out, of those that fit if any does."""
    seen = values.mean(axis=1)
    own = _own(loss, shares)
    fits = []
    for law in laws(loss, len(shares)):
        left_out = _left_out(law, own, seen[None])[0]
        error = float(np.sqrt(((seen - left_out) ** 2).mean()))
        fit = Fit(law, _polished(law, own, seen), left_out, error)
        fits.append(_tested(fit, own, values, seed))
    return min(fits, key=lambda fit: (fit.fits() is False, fit.error))


def predict(law: Law, constants: Floats, own: Floats) -> Floats:
    """Losses (n, shares) for constants (n, k) at shares of the loss's own corpus."""
    return np.asarray(constants[:, :1] + constants[:, 1:2] * law.shape(constants[:, 2:], own))


def noise_of(values: Floats) -> tuple[float, int]:
    """The standard deviation of one loss (shares, seeds) without what its share and its seed do, and its
    degrees of freedom; NaN with one seed."""
    shares, seeds = values.shape
    if seeds < 2:
        return math.nan, 0
    left = values - values.mean(axis=1, keepdims=True) - values.mean(axis=0, keepdims=True) + values.mean()
    freedom = (shares - 1) * (seeds - 1)
    return math.sqrt(float((left**2).sum()) / freedom), freedom


def _own(loss: str, shares: Floats) -> Floats:
    return shares if loss == "general" else 1 - shares


def _on_grid(law: Law, own: Floats, curves: Floats, grid: Floats) -> tuple[Floats, Floats]:
    """For each curve (n, shares) and point of the grid the factor of the shape and the sum of squares."""
    shapes = law.shape(grid, own)
    shapes = shapes - shapes.mean(axis=1, keepdims=True)
    centred = curves - curves.mean(axis=1, keepdims=True)
    products, squares = centred @ shapes.T, (shapes**2).sum(axis=1)
    factors = np.maximum(products / np.where(squares > 0, squares, 1.0), 0.0)
    left = (centred**2).sum(axis=1)[:, None] - factors * (2 * products - factors * squares)
    return factors, left


def _fitted(law: Law, own: Floats, curves: Floats) -> Floats:
    """The constants (n, k) of each curve (n, shares), those of the shape from the grid."""
    factors, left = _on_grid(law, own, curves, law.grid)
    best = left.argmin(axis=1)
    factor = factors[np.arange(len(curves)), best]
    shape = law.grid[best]
    constant = curves.mean(axis=1) - factor * law.shape(shape, own).mean(axis=1)
    return np.concatenate([constant[:, None], factor[:, None], shape], axis=1)


def _left_out(law: Law, own: Floats, curves: Floats) -> Floats:
    """What is predicted for each share of each curve from the others."""
    found = np.empty_like(curves)
    for place in range(len(own)):
        kept = np.arange(len(own)) != place
        constants = _fitted(law, own[kept], curves[:, kept])
        found[:, place] = predict(law, constants, own[place : place + 1])[:, 0]
    return found


def _polished(law: Law, own: Floats, curve: Floats) -> Floats:
    """The constants of one curve: the best of those that several starts lead to."""
    from scipy.optimize import minimize

    def left(logs: Floats) -> float:
        return float(_on_grid(law, own, curve[None], np.exp(np.clip(logs, *bounds))[None])[1][0, 0])

    bounds = np.log(law.grid.min(axis=0)), np.log(law.grid.max(axis=0))
    squares = _on_grid(law, own, curve[None], law.grid)[1][0]
    starts = np.log(law.grid[np.argsort(squares, kind="stable")[:: max(1, len(squares) // 50)][:STARTS]])
    ends = [
        minimize(left, start, method="Nelder-Mead", options={"xatol": 1e-6, "fatol": 0}) for start in starts
    ]
    shape = np.exp(np.clip(min(ends, key=lambda end: float(end.fun)).x, *bounds))
    one = law._replace(grid=shape[None])
    return np.asarray(_fitted(one, own, curve[None])[0])


def _described(loss: str, shares: Floats, values: Floats, fit: Fit, seed: int) -> Tree:
    """A fit with its intervals over seeds, and whether it is one."""
    own, seen = _own(loss, shares), values.mean(axis=1)
    p, spread, noise, fits = fit.p, fit.expected, fit.noise, fit.fits()
    drawn = _over_seeds(values, seed)
    constants = _fitted(fit.law, own, drawn) if drawn is not None else None
    curves = predict(fit.law, constants, own) if constants is not None else None
    fitted = predict(fit.law, fit.constants[None], own)[0]
    levels = [
        {"share": float(shares[i]), "seen": float(seen[i]), "fitted": float(fitted[i]),
         **_ends(None if curves is None else curves[:, i]), "left_out": float(fit.left_out[i]),
         "error": float(seen[i] - fit.left_out[i]),
         "expected_error": None if spread is None else float(spread[i])}
        for i in range(len(shares))
    ]  # fmt: skip
    named = {
        name: {"value": float(fit.constants[i]), **_ends(None if constants is None else constants[:, i])}
        for i, name in enumerate(fit.law.names)
    }
    head = f"{loss} loss: the {fit.law.name} law ({fit.law.formula})"
    missed = f"misses a share that is left out by {fit.error:.2g} on average"
    if fits is None:
        said = f"{head} {missed}; with one seed nothing says whether that is noise."
    else:
        verdict = "fits" if fits else "does not fit"
        said = f"{head} {verdict}: it {missed}, p {p:.2g} of so much by the seeds' noise ({noise:.2g}) alone."
    return {
        "law": fit.law.name, "formula": fit.law.formula, "constants": named, "levels": levels,
        "error": fit.error, "noise": noise, "p": p, "fits": fits, "said": said,
    }  # fmt: skip


def _tested(fit: Fit, own: Floats, values: Floats, seed: int) -> Fit:
    """The fit with its test against the seeds' noise."""
    deviation, freedom = noise_of(values)
    if not freedom:
        return fit
    generator = np.random.default_rng(seed)
    truth = predict(fit.law, fit.constants[None], own)
    known = freedom / generator.chisquare(freedom, (DRAWS, 1))
    least = FLOOR * abs(float(values.mean()))
    noise = np.maximum(deviation * np.sqrt(known / values.shape[1]), least)
    made = truth + noise * generator.standard_normal((DRAWS, len(own)))
    missed = made - _left_out(fit.law, own, made)
    spread = np.sqrt((missed**2).mean(axis=0))
    size = ((missed / spread) ** 2).mean(axis=1)
    seen = (((values.mean(axis=1) - fit.left_out) / spread) ** 2).mean()
    p = (1 + np.count_nonzero(size >= seen)) / (1 + DRAWS)
    known_noise = max(deviation / math.sqrt(values.shape[1]), least)
    return fit._replace(p=float(p), expected=spread, noise=known_noise)


def _over_seeds(values: Floats, seed: int) -> Floats | None:
    """Mean curves (draws, shares) of resampled seeds, the same ones for all shares; None with too few."""
    seeds = values.shape[1]
    if seeds < LEAST:
        return None
    weights = np.random.default_rng(seed).multinomial(seeds, np.full(seeds, 1 / seeds), DRAWS) / seeds
    mean = values.mean(axis=1)
    return np.asarray(mean + stretch(seeds) * (weights @ values.T - mean))


def _ends(drawn: Floats | None) -> Tree:
    if drawn is None:
        return {"low": None, "high": None}
    low, high = np.quantile(drawn, [0.025, 0.975])
    return {"low": float(low), "high": float(high)}


def _recommended(
    shares: Floats, values: Mapping[str, Floats], fits: Mapping[str, Fit], worse: float, seed: int
) -> Tree:
    """The share that the laws recommend, with its interval over seeds."""
    grid = np.linspace(shares[0], shares[-1], GRID)

    def chosen(constants: Mapping[str, Floats]) -> Floats:
        curves = {
            loss: predict(fits[loss].law, constants[loss], _own(loss, grid)) for loss in ("domain", "general")
        }
        least = curves["general"].min(axis=1, keepdims=True)
        allowed = curves["general"] <= least * (1 + worse) * (1 + 1e-12)
        return np.asarray(grid[np.where(allowed, curves["domain"], np.inf).argmin(axis=1)])

    share = float(chosen({loss: fit.constants[None] for loss, fit in fits.items()})[0])
    drawn = {loss: _over_seeds(values[loss], seed) for loss in fits}
    known = {
        loss: _fitted(fits[loss].law, _own(loss, shares), curves)
        for loss, curves in drawn.items()
        if curves is not None
    }
    ends = _ends(chosen(known) if len(known) == len(fits) else None)
    over = f" (95% interval over seeds {ends['low']:.1%} to {ends['high']:.1%})" if known else ""
    said = f"Replay {share:.1%}{over}: {_condition(worse)}."
    return {"share": share, **ends, "by": "the laws", "worse": worse, "said": said}


def _tried(shares: Floats, values: Mapping[str, Floats], worse: float) -> Tree:
    """The share that is best among those tried."""
    general, domain = (values[loss].mean(axis=1) for loss in ("general", "domain"))
    allowed = general <= general.min() * (1 + worse)
    share = float(shares[np.where(allowed, domain, np.inf).argmin()])
    said = f"Replay {share:.0%}, among the shares that were tried: {_condition(worse)}."
    return {"share": share, **_ends(None), "by": "the shares tried", "worse": worse, "said": said}


def _condition(worse: float) -> str:
    return f"the least domain loss with a general loss at most {100 * worse:g}% above its least"
