"""`python -m sft --dry-run`: is everything right but the weights, which are not looked at?"""

from collections.abc import Iterator
from pathlib import Path

from core import dry_run
from core.errors import UserError
from core.train.run_dir import check_resume, check_unchanged
from data.chat.chat_template import TEMPLATES, install
from data.readers.source_files import list_files
from sft.config import FIXED, SftConfig, stages


def looks(config: SftConfig) -> Iterator[dry_run.Look]:
    """What the run would use, stage after stage."""
    todo = stages(config)
    for stage in todo:
        run = Path(stage.run_dir)
        if len(todo) > 1:
            yield dry_run.Look("stage", run.name)
        check_resume(stage.resume, run)
        check_unchanged(stage, run, FIXED)
        if stage.card.former is not None and not Path(stage.card.former).is_file():
            raise UserError(f"card.former: {stage.card.former}: there is no such file.")
        yield from dry_run.training(stage.training, stage.model, stage.deepspeed, stage.data.max_tokens)
        yield from chats(stage)
        yield dry_run.writable("run", stage.run_dir)
    yield dry_run.model("base", todo[0].base)
    if Path(todo[0].base).is_dir():
        yield from template(todo[0])


def chats(config: SftConfig) -> Iterator[dry_run.Look]:
    """The files that the chats are made of."""
    name = config.data.template
    if name is not None and name not in TEMPLATES:
        raise UserError(f"data.template: there is none called {name!r}; there are {', '.join(TEMPLATES)}.")
    for source in config.data.sources:
        if source.path is None:
            yield dry_run.Look("chats", f"{source.title}: a data set of the hub")
            continue
        if Path(source.path).exists():
            list_files(Path(source.path))
        yield dry_run.place("chats", source.path)


def template(config: SftConfig) -> Iterator[dry_run.Look]:
    """That the base's tokenizer can write the template."""
    from core.model.loading import load_tokenizer

    tokenizer = load_tokenizer(config.base)
    install(tokenizer, config.data.template)
    yield dry_run.Look("template", f"{config.data.template or 'its own'}, ended by {tokenizer.eos_token}")
    yield from dry_run.vocabulary(config.base, config.base)
