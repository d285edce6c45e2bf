"""`python -m pretrain --dry-run`: is everything right but the weights, which are not looked at?"""

from collections.abc import Iterator
from pathlib import Path

from core import dry_run
from core.train.run_dir import check_branch, check_resume, check_unchanged
from data.dry_run import looks as data_looks
from data.pipeline import find_corpus
from pretrain.config import FIXED, PretrainConfig


def looks(config: PretrainConfig) -> Iterator[dry_run.Look]:
    """What the run would use, in the order in which it would."""
    run = Path(config.run_dir)
    check_resume(config.resume, run)
    check_unchanged(config, run, FIXED)
    if config.branch_from:
        yield dry_run.place("branch", config.branch_from)
        if Path(config.branch_from).exists():
            check_branch(config, Path(config.branch_from), FIXED)
    yield from dry_run.training(config.training, config.model, config.deepspeed, config.sequence_length)
    made = Path(config.data.output_dir, "pack").exists()
    corpus = find_corpus(config.data) if made else None
    if corpus is None:
        yield dry_run.Look(
            "corpus", f"{config.data.output_dir}: not made yet; --prepare makes it:", there=False
        )
        yield from data_looks(config.data)
    else:
        yield dry_run.place("corpus", corpus.folder / "pack")
        yield from dry_run.vocabulary(config.base, corpus.tokenizer)
    for more in config.mixture:
        yield dry_run.place("mixture", more.output_dir)
    if config.general_dir:
        yield dry_run.place("general", config.general_dir)
    if config.model.architecture is None:
        yield dry_run.model("base", config.base)
    else:
        yield dry_run.Look("base", f"random weights, {config.model.architecture['model_type']}")
    yield dry_run.writable("run", config.run_dir)
