"""What passes through scoring: a line of predictions.jsonl, and what a metric makes of many of them."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, Field, ValidationError

from core.config.loader import Config
from core.errors import UserError


class EvalSample(Config):
    """A line of predictions.jsonl. Further keys are kept by those who write them and ignored here."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)
    task: str
    """Name of the task."""
    id: str
    """Unique within the task; comparisons pair by it."""
    prediction: str
    """What the model gave."""
    reference: str
    """What is right."""
    metrics: tuple[str, ...] = ()
    """Names of the metrics of its task (eval/metrics/metrics.py)."""
    source: str = ""
    """What the model was asked about, where a metric needs it (numbers preserved)."""
    prompt: str = ""
    """All that the model was asked."""
    by: str = ""
    """How the model was asked: `generation`, `log-likelihood`, and what is odd about it."""
    measured: dict[str, float] = Field({})
    """Sums over tokens, where likelihoods were asked (eval/metrics/perplexity.py)."""
    cut: int = 0
    """Tokens that did not fit in the model's context and were cut off on the left."""
    options: int | None = None
    """Number of options of a multiple-choice question."""
    glossary: dict[str, list[str]] = Field({})
    """Terms of the source and what they may be called in the prediction."""
    laws: dict[str, str] = Field({})
    """Names of laws and the articles that they have, as `1..159 106-1`."""
    groups: dict[str, str] = Field({})
    """Break-downs, such as `ipc: G` or `subject: law`."""


def read_predictions(path: Path) -> list[EvalSample]:
    """All samples of a predictions file, or of a run folder; UserError names the line and the key.

    Where a sample stands twice, as after a resume that repaired it, the last line counts.
    """
    file = path / "predictions.jsonl" if path.is_dir() else path
    found = {(s.task, s.id): s for s in (_sample(place, tree) for place, tree in read_jsonl(file))}
    if not found:
        raise UserError(f"{file}: no predictions in it.")
    return list(found.values())


def read_jsonl(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """`FILE:LINE` and the object of each line."""
    if not file.exists():
        raise UserError(f"{file}: there is no such file.")
    with file.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            place = f"{file}:{number}"
            if not line.strip():
                continue
            try:
                tree = json.loads(line)
            except ValueError as error:
                raise UserError(f"{place}: not JSON ({error}). Mend or remove the line.") from None
            if not isinstance(tree, dict):
                raise UserError(f"{place}: a line must be an object {{…}}, not {type(tree).__name__}.")
            yield place, tree


def missing_field(place: str, name: str, there: Iterable[str]) -> UserError:
    """The error of a line without a field that it needs."""
    return UserError(f"{place}: no field `{name}`; there are: {', '.join(there) or 'none'}.")


def _sample(place: str, tree: dict[str, Any]) -> EvalSample:
    try:
        return EvalSample.model_validate_json(json.dumps(tree))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = ".".join(map(str, first["loc"]))
        if first["type"] == "missing":
            raise missing_field(place, name, tree) from None
        raise UserError(f"{place}: `{name}`: {first['msg']}; it is {first['input']!r}.") from None
