"""Which model a command line means: a folder, an endpoint, a predictions file.

--model FOLDER | --endpoint URL --model NAME | --replay FILE ──▶ Backend, Ranks ──▶ eval/runner.py
"""

import argparse
import os
from functools import partial
from pathlib import Path

from core.errors import UserError
from core.provenance import manifest
from eval.analysis import scoring
from eval.analysis.report import write_report
from eval.models.base import Backend
from eval.runner import Ranks, run
from eval.tasks import task as tasks
from eval.tasks.sample import read_predictions


def run_arguments(arguments: argparse.Namespace) -> None:
    """Ask the model, and its base where one is given, all questions of the tasks; score and compare."""
    check(arguments)
    name = arguments.model or str(arguments.replay or "copy")
    output = arguments.output or _output(name)
    chosen = tasks.load_tasks(arguments.tasks)
    requests = [
        request for task, config, _ in chosen for request in tasks.requests(task, config, arguments.data)
    ]
    files = [
        file
        for task, config, path in chosen
        for file in (path, *tasks.data_files(task, config, arguments.data))
    ]
    ranks = _ranks()
    hashes = manifest.hash_files(dict.fromkeys(files))
    base = arguments.base and Path(arguments.base)
    base_run = base if base and (base / "predictions.jsonl").is_file() else base and _output(arguments.base)
    if base_run and base_run.resolve() == output.resolve():
        raise UserError(f"{output} would hold both the model and its base. Give another --output.")
    if base and base_run != base:
        run(requests, _open(arguments, arguments.base, ranks, of_base=True), base_run, hashes, ranks)
    run(requests, _open(arguments, name, ranks), output, hashes, ranks)
    if ranks.rank:
        return
    if base_run:
        rows = scoring.compare(read_predictions(base_run), read_predictions(output))
        print(f"\nA is {base_run}, B is {output}\n{scoring.comparison_table(rows)}")
    print(write_report(output, base_run or None))


def check(arguments: argparse.Namespace) -> None:
    """UserError where a command line names nothing that could answer."""
    if not (arguments.model or arguments.replay or arguments.copy):
        raise UserError("give --model FOLDER, --endpoint URL --model NAME, --replay FILE, or --copy.")


def _output(name: str) -> Path:
    """A folder of its own for each model: `runs/mine/model` and `runs/other/model` are two."""
    parts = [part for part in Path(name).parts if part not in ("/", ".", "..")]
    return Path("runs/eval") / "-".join(parts)


def _open(arguments: argparse.Namespace, name: str, ranks: Ranks, of_base: bool = False) -> Backend:
    if (arguments.replay or arguments.copy) and not of_base:
        from eval.models import replay

        return replay.open_backend(arguments.replay) if arguments.replay else replay.open_copy()
    if arguments.endpoint:
        from eval.models import openai_api

        config = openai_api.EndpointConfig(
            url=arguments.endpoint,
            model=name,
            chat=arguments.chat,
            log_probabilities=arguments.log_probabilities,
            concurrency=max(1, arguments.concurrency),
        )
        return openai_api.open_backend(config)
    from eval.models import hf, loglikelihood

    (hashes, *_) = ranks.gather(hf.inputs(name) if ranks.rank == 0 else None)
    settings = {"chat": arguments.chat, "four_bit": arguments.four_bit, "context": arguments.context}
    local = hf.open_model(name, arguments.batch_tokens, **settings)
    return Backend(
        hf.identity(hashes, **settings),
        partial(hf.generate, local),
        partial(loglikelihood.log_likelihood, local),
        partial(loglikelihood.rolling_log_likelihood, local),
        partial(loglikelihood.answer_likelihood, local),
        partial(hf.cut, local),
        hashes,
    )


def _ranks() -> Ranks:
    """The processes that torchrun started; they talk through gloo, and only about what is done."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return Ranks()
    from datetime import timedelta

    import torch.distributed as dist

    if not dist.is_initialized():
        dist.init_process_group("gloo", timeout=timedelta(days=2))

    def gather(value: object) -> list[object]:
        found: list[object] = [None] * size
        dist.all_gather_object(found, value)
        return found

    return Ranks(dist.get_rank(), size, gather)
