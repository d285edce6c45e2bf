"""Samples with their answers, one for each line of predictions.jsonl.

predictions.jsonl ──by task and id; the last line counts──▶ EvalSample
measured-*.jsonl  ──where the texts are still the same────▶ its `measured`
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ConfigDict, Field, FiniteFloat, ValidationError

from core.config.loader import Config
from core.errors import UserError


class EvalSample(Config):
    """A line of predictions.jsonl; other keys in the line are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)
    task: str
    """Name of the task."""
    id: str
    """Unique within the task; comparisons pair samples by it."""
    prediction: str
    """The model's answer."""
    reference: str
    """The right answer."""
    metrics: tuple[str, ...] = ()
    """Metrics of its task, by name (eval/metrics/metrics.py)."""
    source: str = ""
    """The text that the question is about, if a metric needs it (e.g. which numbers a translation keeps)."""
    prompt: str = ""
    """The prompt as the model was asked it."""
    by: str = ""
    """How the answer was obtained: `generation` or `log-likelihood`, with any caveat."""
    measured: dict[str, FiniteFloat] = Field({})
    """Sums over tokens if likelihoods were measured (eval/metrics/perplexity.py); and, under names with `|`,
    what was measured after the run (eval/metrics/comet_values.py)."""
    cut: int = 0
    """Number of tokens cut out because the prompt was longer than the context even without examples."""
    shots_left_out: int = 0
    """Number of examples, from the last, left out because the prompt was longer than the context."""
    options: int | None = None
    """Number of options of a multiple-choice question."""
    glossary: dict[str, list[str]] = Field({})
    """Terms of the source and their accepted translations."""
    laws: dict[str, str] = Field({})
    """Laws by name, and the articles that exist in each, e.g. `1..159 106-1`."""
    sources: int | None = None
    """Number of numbered sources that the question came with."""
    relevant_sources: tuple[int, ...] = ()
    """The numbers, from 1, of the sources that have the answer."""
    groups: dict[str, str] = Field({})
    """Groups for breakdowns, such as `ipc: G` or `subject: law`."""


class MeasuredValue(Config):
    """A line of measured-*.jsonl: what was measured of one answer after the run."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
    task: str
    """Name of the task."""
    id: str
    """The sample's id."""
    texts: str
    """`texts_hash` of the sample that was measured."""
    measure: str
    """Name under which the sample's `measured` has the value."""
    value: FiniteFloat
    """The value."""


Line = TypeVar("Line", EvalSample, MeasuredValue)


def read_predictions(path: Path) -> list[EvalSample]:
    """Read a predictions file or a run folder; UserError gives file, line and key.

    If a sample appears twice (after a resume that repaired it), the last line is used. Of a run folder, also
    what was measured later, of answers that have not changed since.
    """
    file = path / "predictions.jsonl" if path.is_dir() else path
    lines = (parsed(EvalSample, *each) for each in read_jsonl(file))
    samples = {(s.task, s.id): s for s in lines}
    if not samples:
        raise UserError(f"{file}: the file has no predictions.")
    for sidecar in sorted(file.parent.glob("measured-*.jsonl")) if file.name == "predictions.jsonl" else ():
        found: dict[tuple[str, str], dict[str, dict[str, float]]] = {}
        for location, tree in read_jsonl(sidecar):
            line = parsed(MeasuredValue, location, tree)
            found.setdefault((line.task, line.id), {}).setdefault(line.texts, {})[line.measure] = line.value
        for key in found.keys() & samples.keys():
            if values := found[key].get(texts_hash(samples[key])):
                update = {"measured": samples[key].measured | values}
                samples[key] = samples[key].model_copy(update=update)
    return list(samples.values())


def texts_hash(s: EvalSample) -> str:
    """A hash of the texts that a measurement of the answer depends on."""
    return hashlib.sha256(json.dumps([s.source, s.prediction, s.reference]).encode()).hexdigest()[:32]


def read_jsonl(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield `FILE:LINE` and the object of each line; blank lines are skipped."""
    if not file.exists():
        raise UserError(f"{file}: file not found.")
    with file.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            location = f"{file}:{number}"
            if not line.strip():
                continue
            try:
                tree = json.loads(line)
            except ValueError as error:
                raise UserError(
                    f"{location}: not valid JSON ({error}). Correct or remove the line."
                ) from None
            if not isinstance(tree, dict):
                raise UserError(f"{location}: each line must be a JSON object, not {type(tree).__name__}.")
            yield location, whole_characters(tree)


def whole_characters(value: Any) -> Any:
    """A JSON value in which half a surrogate pair (an emoji that was cut in two) is U+FFFD: such a text can
    be neither tokenized nor written to a file."""
    match value:
        case str():
            try:
                value.encode()
            except UnicodeEncodeError:
                return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        case list():
            return [whole_characters(each) for each in value]
        case dict():
            return {whole_characters(key): whole_characters(each) for key, each in value.items()}
    return value


def missing_field(location: str, name: str, fields: Iterable[str]) -> UserError:
    """The error for a line without a required field."""
    return UserError(f"{location}: no field `{name}`. Its fields: {', '.join(fields) or 'none'}.")


def parsed(kind: type[Line], location: str, tree: dict[str, Any]) -> Line:
    """A line as what it is; UserError gives its location and the key that is wrong."""
    try:
        return kind.model_validate_json(json.dumps(tree))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = ".".join(map(str, first["loc"]))
        if first["type"] == "missing":
            raise missing_field(location, name, tree) from None
        raise UserError(f"{location}: `{name}` is {first['input']!r}: {first['msg']}.") from None
