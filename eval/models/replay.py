"""Answers without a model: from a predictions file, to score another program's answers; or a copy of the
input, as a baseline that does nothing."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from core.provenance.manifest import hash_files
from eval.models.base import Backend
from eval.sample import read_predictions
from eval.tasks.task import Request


def open_backend(file: Path) -> Backend:
    """Answers from a predictions file or run folder: a "task", "id", "prediction", "reference" per line."""
    file = file / "predictions.jsonl" if file.is_dir() else file
    samples = {(s.task, s.id): s for s in read_predictions(file)}

    def generate(requests: Sequence[Request]) -> Iterator[tuple[int, str | Exception]]:
        for i, request in enumerate(requests):
            sample = samples.get((request.sample.task, request.sample.id))
            if sample is None:
                yield i, LookupError(f"no prediction in {file}")
            elif sample.reference != request.sample.reference:
                yield i, LookupError(f"its reference in {file} is different")
            else:
                yield i, sample.prediction

    hashes = hash_files([file])
    identity = {"backend": "replay", "file": hashes[file.as_posix()]}
    return Backend(identity, generate, inputs=hashes, depends_on=_sample)


def open_copy() -> Backend:
    """Answers each request with its `source`, or its whole prompt if the task has no `source`."""

    def generate(requests: Sequence[Request]) -> Iterator[tuple[int, str | Exception]]:
        for i, request in enumerate(requests):
            yield i, request.sample.source or request.prompt

    return Backend({"backend": "copy"}, generate, depends_on=lambda request: request.sample.source)


def _sample(request: Request) -> list[str]:
    """A predictions file is searched for the sample, not for the prompt."""
    return [request.sample.task, request.sample.id, request.sample.reference]
