"""What a reader of scores must know about the answers behind them; on the terminal and on the page.

samples ──▶ counts by task ──▶ one sentence for each kind of trouble
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from eval.sample import EvalSample

KINDS: dict[str, tuple[Callable[[EvalSample], bool], str]] = {
    "empty": (
        # A likelihood needs no answer; a name with `|` is a measurement of the answer.
        lambda s: not s.prediction.strip() and all("|" in name for name in s.measured),
        "answers are empty. Metrics of generated text score them as wrong.",
    ),
    "cut_to_context": (
        lambda s: s.cut > 0,
        "prompts were longer than the context, and their middle was cut out: these answers are to a part of "
        "the question.",
    ),
    "shots_left_out": (
        lambda s: s.shots_left_out > 0,
        "prompts did not fit the context with all their examples, which were left out from the last.",
    ),
    "by_generation": (
        lambda s: s.by.startswith("generation, as"),
        "multiple-choice questions were answered by generation, as the model gives no log-probabilities. "
        "Do not compare them with scores by log-likelihood.",
    ),
    "unequal": (
        lambda s: "UNEQUAL" in s.by,
        "questions have option letters with different numbers of tokens, which favours the shortest. Set "
        "`before_letter` or `by: generation` in the task file.",
    ),
    "tied": (
        lambda s: _likeliest(s) > 1,
        "questions have options that are likeliest together, to the last digit: the first was taken. If they "
        "are many, the model may be broken.",
    ),
}
"""Name in the manifest: which samples, and what is said about their number."""


def count(samples: Sequence[EvalSample]) -> dict[str, Counter[str]]:
    """The number of samples of each kind, by task."""
    return {kind: Counter(s.task for s in samples if meant(s)) for kind, (meant, _) in KINDS.items()}


def sentences(samples: Sequence[EvalSample], limits: Mapping[str, int] | None = None) -> list[str]:
    """A sentence for each kind that occurs, and for tasks of which only the first samples were asked."""
    said = []
    for kind, by_task in count(samples).items():
        if by_task:
            number, _, rest = f"{by_task.total():,} {KINDS[kind][1]}".partition(".")
            several = len({s.task for s in samples}) > 1
            where = f" ({', '.join(f'{task}: {n:,}' for task, n in by_task.items())})" if several else ""
            said.append(f"{number}{where}.{rest}")
    limits = {task: n for task, n in (limits or {}).items() if any(s.task == task for s in samples)}
    if limits:
        named = ", ".join(f"{task}: {n:,}" for task, n in limits.items())
        said.append(
            f"Only the first samples were asked (--limit; {named}): no result of the whole benchmark."
        )
    return said


def _likeliest(s: EvalSample) -> int:
    """How many options of a multiple-choice question have the highest likelihood."""
    values = [value for name, value in s.measured.items() if len(name) == 1] if s.options else []
    return values.count(max(values)) if values else 0
