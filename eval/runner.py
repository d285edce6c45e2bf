"""Run requests on a model and score the answers; a killed run resumes where it stopped.

    requests ──those without an answer yet──▶ backend ──▶ predictions.jsonl ──▶ scores.json, manifest.json

eval/answers.py says which answers are there and are kept. Under torchrun each process appends its share to
its own file, and rank 0 merges the files.
"""

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from core.errors import UserError
from core.provenance import atomic_io, manifest
from eval import answers
from eval.analysis import notices, scoring
from eval.models.base import Backend, ask
from eval.progress import progress
from eval.ranks import Ranks
from eval.sample import read_predictions
from eval.tasks.task import Request


def run(
    requests: Sequence[Request],
    backend: Backend,
    folder: Path,
    inputs: Mapping[str, str],
    ranks: Ranks = Ranks(),  # noqa: B008
    *,
    name: str = "",
    limit: int | None = None,
) -> None:
    """Complete `folder`/predictions.jsonl, then write scores.json and manifest.json, which has `inputs`, the
    model's `name` and the `limit` on the samples of the tasks.

    Finished tasks of the same model that are not asked now stay in all three. Raises UserError if requests
    failed; the other answers are kept, and a rerun asks only the missing ones.
    """
    names = Counter((request.sample.task, request.sample.id) for request in requests)
    for (task, sample), n in names.items():
        if n > 1:
            raise UserError(f"task {task}: {n} samples have the id `{sample}`. Ids must be unique in a task.")
    file = folder / answers.NAME
    earlier: dict[str, Any] = {}
    with ExitStack() as stack:
        if ranks.rank == 0:
            answers.check_folder(folder)
            folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(
                atomic_io.lock(folder / atomic_io.LOCK, f"{folder}: another process is writing to it")
            )
            earlier = answers.begin(folder, backend, {task for task, _ in names})
            answers.keep(folder, backend, requests, earlier["samples"])
        ranks.gather(None)
        done = answers.answered(folder)
        left: dict[str, Request] = {}
        for request in requests:
            if (request.sample.task, request.sample.id) not in done:
                left.setdefault(answers.answer_key(backend, request), request)
        there = sum(sample in done for sample in names)
        if there and ranks.rank == 0:
            print(f"{there:,} of {len(requests):,} answers already exist")
        missing = sorted(
            left, key=lambda key: len(left[key].prompt)
        )  # gives each process long and short ones
        part = file if ranks.size == 1 else folder / f"predictions-{ranks.rank}.jsonl"
        mine = set(missing[ranks.rank :: ranks.size])
        asked = {key: request for key, request in left.items() if key in mine}
        failures = ranks.gather(_append(backend, asked, part, ranks.rank == 0))
        failed = [each for of_rank in failures for each in of_rank]
        if ranks.rank:
            return
        others = answers.keep(folder, backend, requests, earlier["samples"], sort=bool(left))
        if failed:
            raise UserError(
                f"{len(failed)} of {len(requests)} requests failed (first: {failed[0]}). "
                f"The other answers are in {file}; rerun the command to retry only the failed ones."
            )
        limits = earlier["limits"] | ({task: limit for task, _ in names} if limit else {})
        config = {"model": name, "backend": backend.identity, "limits": limits}
        finish(folder, config, {**earlier["inputs"], **backend.inputs, **inputs})
        if others:
            print(
                f"{others:,} answers of other models, prompts or samples are kept in "
                f"{folder / answers.OTHERS} and are not scored"
            )


def finish(folder: Path, config: Mapping[str, Any], inputs: Mapping[str, str]) -> None:
    """Score the predictions, write scores.json and manifest.json, and print notes on the answers."""
    samples = read_predictions(folder)
    scores = scoring.score(samples)
    atomic_io.write_text(folder / "scores.json", json.dumps(scores, ensure_ascii=False, indent=1) + "\n")
    counts: dict[str, Any] = {
        "samples": {task: tree["n"] for task, tree in scores.items()},
        **{kind: found.total() for kind, found in notices.count(samples).items()},
        "by": dict(Counter(s.by for s in samples)),
    }
    (folder / answers.EARLIER).unlink(missing_ok=True)
    manifest.write(folder, step="eval", config=config, inputs=inputs, counts=counts)
    print(f"{folder}\n{scoring.score_table(scores)}")
    for sentence in notices.sentences(samples, config.get("limits")):
        print(f"note: {sentence}")


def _append(backend: Backend, asked: Mapping[str, Request], file: Path, shown: bool) -> list[str]:
    """Ask the requests and append their answers, with their keys, to `file`; returns the failures with their
    reasons. Progress is `shown`."""
    keys, whole = list(asked), list(asked.values())
    fitted = backend.fit(whole) if backend.fit else [(request, 0, 0) for request in whole]
    requests = [request for request, _, _ in fitted]
    failed = []
    with file.open("a", encoding="utf-8") as out:
        for index, answer in progress(ask(backend, requests), len(requests), shown):
            request = requests[index]
            if isinstance(answer, Exception):
                failed.append(f"{request.sample.task} {request.sample.id}: {answer}")
                continue
            _, left_out, cut = fitted[index]
            given = {"prompt": str(request.prompt), "shots_left_out": left_out, "cut": cut}
            line = answers.answer_line(request, answer | given, keys[index])
            out.write(json.dumps(line, ensure_ascii=False) + "\n")
            out.flush()
        os.fsync(out.fileno())
    return failed
