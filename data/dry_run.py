"""`python -m data run --dry-run`: the sources as they are, and what the run would make from them."""

from collections.abc import Iterator
from pathlib import Path

from core import dry_run
from data.incremental import earlier_corpora
from data.pipeline import DataConfig
from data.readers.source import Source, check_sources
from data.readers.source_files import list_files


def looks(config: DataConfig) -> Iterator[dry_run.Look]:
    """What the pipeline would use; no document is read."""
    sources = [Source(path=source) if isinstance(source, str) else source for source in config.sources]
    check_sources(sources, config.require_use)
    if config.extends:
        earlier_corpora(config.extends)
    if not sources:
        yield dry_run.Look("source", f"{config.synthetic.inventions:,} synthetic inventions")
    for source in sources:
        if source.dataset and not Path(source.dataset).is_dir():
            yield dry_run.Look("source", f"{source.name}: a data set of the hub")
            continue
        path = Path(source.path or source.dataset or "")
        if path.exists():
            list_files(path)
        yield dry_run.place("source", path)
    for each in config.decontaminate.sets:
        yield dry_run.place("evaluation", each.path)
    if config.tokenizer.path is None:
        yield dry_run.Look("tokenizer", f"{config.tokenizer.vocabulary_size:,} pieces, trained on the corpus")
    elif config.tokenizer.path.endswith(".model"):
        yield dry_run.place("tokenizer", config.tokenizer.path)
    else:
        yield dry_run.model("tokenizer", config.tokenizer.path)
    yield dry_run.writable("corpus", config.output_dir)
