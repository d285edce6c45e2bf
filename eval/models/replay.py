"""Answers without a model: from a predictions file, so that other programs' are scored as ours; or the
question's own text, as the baseline that does nothing."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from core.provenance.manifest import hash_files
from eval.models.base import Backend
from eval.sample import read_predictions
from eval.tasks.task import Request


def open_backend(file: Path) -> Backend:
    """The answers of `file` (or a run folder): {"task", "id", "prediction", "reference"} a line."""
    file = file / "predictions.jsonl" if file.is_dir() else file
    there = {(s.task, s.id): s for s in read_predictions(file)}

    def generate(requests: Sequence[Request]) -> Iterator[tuple[int, str | Exception]]:
        for i, request in enumerate(requests):
            found = there.get((request.sample.task, request.sample.id))
            if found is None:
                yield i, LookupError(f"{file} has no prediction for it")
            elif found.reference != request.sample.reference:
                yield i, LookupError(f"{file} has another reference for it")
            else:
                yield i, found.prediction

    hashes = hash_files([file])
    return Backend({"backend": "replay", "file": hashes[file.as_posix()]}, generate, inputs=hashes)


def open_copy() -> Backend:
    """Answers each request with its `source`, or with all of its prompt where the task names none."""

    def generate(requests: Sequence[Request]) -> Iterator[tuple[int, str | Exception]]:
        for i, request in enumerate(requests):
            yield i, request.sample.source or request.prompt

    return Backend({"backend": "copy"}, generate)
