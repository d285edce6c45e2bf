"""Run requests on a model and score the answers; a killed run resumes where it stopped.

    requests ──those without an answer yet──▶ backend ──▶ predictions.jsonl ──▶ scores.json, manifest.json

Each answer is stored with a key, a hash of everything it depends on (model, prompt, generation settings).
Only lines with a current key are reused, so another model's answers are never mistaken for this one's. Under
torchrun each process appends its share to its own file, and rank 0 merges the files.
"""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from core.errors import UserError
from core.provenance import atomic_io, manifest
from eval.analysis import scoring
from eval.models.base import Backend, ask
from eval.ranks import Ranks
from eval.sample import read_predictions
from eval.tasks.prompt import messages
from eval.tasks.task import Request


def run(
    requests: Sequence[Request],
    backend: Backend,
    folder: Path,
    inputs: Mapping[str, str],
    ranks: Ranks = Ranks(),  # noqa: B008
) -> None:
    """Complete `folder`/predictions.jsonl, then write scores.json and manifest.json (which lists `inputs`).

    Raises UserError if requests failed; the other answers are kept, and a rerun asks only the missing ones.
    """
    names = Counter((request.sample.task, request.sample.id) for request in requests)
    for (task, name), n in names.items():
        if n > 1:
            raise UserError(f"task {task}: {n} samples have the id `{name}`. Ids must be unique in a task.")
    file = folder / "predictions.jsonl"
    keys = [request_key(backend.identity, request) for request in requests]
    with ExitStack() as stack:
        if ranks.rank == 0:
            folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(
                atomic_io.lock(folder / atomic_io.LOCK, f"{folder}: another process is writing to it")
            )
            for name in (manifest.NAME, "report.html"):  # they belong to a finished run
                (folder / name).unlink(missing_ok=True)
            _keep(folder, set(keys))
        ranks.gather(None)
        done = _keys(file)
        missing = [i for i, key in enumerate(keys) if key not in done]
        if done and ranks.rank == 0:
            print(f"{len(requests) - len(missing):,} of {len(requests):,} answers already exist")
        missing.sort(key=lambda i: len(requests[i].prompt))  # gives each process long and short ones
        part = file if ranks.size == 1 else folder / f"predictions-{ranks.rank}.jsonl"
        mine = sorted(missing[ranks.rank :: ranks.size])
        failures = ranks.gather(_append(backend, requests, keys, mine, part))
        failed = [each for of_rank in failures for each in of_rank]
        if ranks.rank:
            return
        _keep(folder, set(keys))
        if failed:
            raise UserError(
                f"{len(failed)} of {len(requests)} requests failed (first: {failed[0]}). "
                f"The other answers are in {file}; rerun the command to retry only the failed ones."
            )
        finish(folder, {"backend": backend.identity}, {**backend.inputs, **inputs})


def finish(folder: Path, config: Mapping[str, Any], inputs: Mapping[str, str]) -> None:
    """Score the predictions, write scores.json and manifest.json, and print warnings about the answers."""
    samples = read_predictions(folder)
    scores = scoring.score(samples)
    atomic_io.write_text(folder / "scores.json", json.dumps(scores, ensure_ascii=False, indent=1) + "\n")
    counts: dict[str, Any] = {
        "samples": {task: tree["n"] for task, tree in scores.items()},
        "cut_to_context": sum(s.cut > 0 for s in samples),
        "empty": sum(s.by.startswith("generation") and not s.prediction.strip() for s in samples),
        "by": dict(Counter(s.by for s in samples)),
    }
    manifest.write(folder, step="eval", config=config, inputs=inputs, counts=counts)
    print(f"{folder}\n{scoring.score_table(scores)}")
    if counts["cut_to_context"]:
        print(
            f"{counts['cut_to_context']} prompts were longer than the context and were truncated on the left"
        )
    if counts["empty"]:
        print(f"{counts['empty']} answers are empty")
    if any("UNEQUAL" in by for by in counts["by"]):
        print(
            "warning: the option letters of some questions have different numbers of tokens, which favours "
            "the shortest. Set `before_letter` or `by: generation` in the task file."
        )


def request_key(identity: dict[str, Any], request: Request) -> str:
    """A hash of everything that an answer depends on."""
    sample = request.sample
    parts = [identity, request.prompt, request.max_new_tokens, request.stop, request.kind, request.options]
    parts += [sample.task, sample.id, sample.model_dump(mode="json")]
    if len(chat := messages(request.prompt)) > 1:  # the same text in other messages has another answer
        parts.append(chat)
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def _append(
    backend: Backend, requests: Sequence[Request], keys: Sequence[str], mine: Sequence[int], file: Path
) -> list[str]:
    """Run the requests `mine` and append their answers to `file`; returns the failures with their reasons."""
    asked = [requests[i] for i in mine]
    cut = backend.cut(asked) if backend.cut else [0] * len(asked)
    failed = []
    with file.open("a", encoding="utf-8") as out:
        for index, answer in ask(backend, asked):
            request, key = asked[index], keys[mine[index]]
            if isinstance(answer, Exception):
                failed.append(f"{request.sample.task} {request.sample.id}: {answer}")
                continue
            line = request.sample.model_dump(exclude_defaults=True)
            # A document is its own prompt: it is stored once, as the reference.
            line |= {"prompt": request.prompt} if request.kind != "text" else {}
            line |= {"prediction": "", "key": key} | ({"cut": cut[index]} if cut[index] else {}) | answer
            out.write(json.dumps(line, ensure_ascii=False) + "\n")
            out.flush()
        os.fsync(out.fileno())
    return failed


def _keep(folder: Path, keys: set[str]) -> None:
    """Merge complete lines with one of `keys` into predictions.jsonl, once each, and delete the parts."""
    kept: dict[str, str] = {}
    parts = sorted(folder.glob("predictions-*.jsonl"))
    for file in [folder / "predictions.jsonl", *parts]:
        for line in atomic_io.complete_lines(file):
            try:
                key = json.loads(line)["key"]
            except (ValueError, LookupError, TypeError):
                continue
            if key in keys:
                kept[key] = line
    atomic_io.write_text(folder / "predictions.jsonl", "".join(f"{line}\n" for line in kept.values()))
    for file in parts:
        file.unlink()


def _keys(file: Path) -> set[str]:
    with file.open(encoding="utf-8") as lines:
        return {json.loads(line)["key"] for line in lines}
