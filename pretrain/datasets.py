"""The packed corpora of a run: training data (one corpus or a mixture) and held-out validation data.

data, mixture ──blocks──▶ one dataset for core.train.loop
data, general_dir ──held-out documents──▶ blocks for core.train.validation
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from core.config.loader import Config
from core.errors import UserError
from core.provenance import manifest
from data.pipeline import Corpus

if TYPE_CHECKING:
    from pretrain.config import PretrainConfig


class CorpusConfig(Config):
    """Another packed corpus in the mixture: more domain text, or general text for replay."""

    name: str = Field(pattern=r"^[\w-]+$")
    """Name used in the log and the metrics."""
    output_dir: str
    """Folder written by `python -m data run`, with the same tokenizer."""
    share: float | None = Field(None, gt=0, lt=1)
    """Its share of the run's tokens; null: proportional to its size, as if it were part of `data`."""
    max_epochs: float | None = Field(None, gt=0)
    """Repeat it at most N times; after that its share goes to the others. null: no limit."""


def load_data(
    config: "PretrainConfig", corpus: Corpus, tokenizer: Any, log: Any
) -> tuple[Any, dict[str, Any]]:
    """Training blocks, and held-out blocks of the domain and of general text, where there are any."""
    import numpy as np

    from core.train.validation import DOMAIN, GENERAL, Validation
    from data.packing.dataset_mixture import Component, Mixture
    from data.packing.indexed_dataset import Documents
    from data.packing.packed_dataset import Blocks, choose_documents

    def plan(split: str, documents: Documents, chosen: Any) -> Blocks:
        length, padding = config.sequence_length, tokenizer.eos_token_id
        blocks = Blocks(documents, length, packing=config.packing, padding_id=padding, chosen=chosen)
        log.line(
            f"{split}: {len(blocks.chosen):,} documents, {blocks.trained_tokens:,} tokens,"
            f" {len(blocks):,} blocks of {length:,} ({blocks.fill:.1%} full)"
        )
        return blocks

    data: Any = plan("train", Documents(corpus.split("train")), None)
    if config.mixture:
        parts = [Component("data", data, None)]
        for more in config.mixture:
            packed = open_corpus(f"mixture: {more.name}", Path(more.output_dir), tokenizer).split("train")
            blocks = plan(more.name, Documents(packed), None)
            parts.append(Component(more.name, blocks, more.share, more.max_epochs))
        data = Mixture(parts)
    held_out = {DOMAIN: corpus}
    if config.general_dir:
        held_out[GENERAL] = open_corpus("general_dir", Path(config.general_dir), tokenizer)
    found = {}
    for name, source in held_out.items():
        documents = Documents(source.split("validation"))
        if not len(documents):
            log.line(f"{name}: nothing is held out (data.pack.validation_share)")
            continue
        chosen = choose_documents(documents, config.validation_tokens, config.data.pack.seed)
        utf8_bytes = np.load(source.split("validation").with_suffix(".bytes.npy"))[chosen].sum()
        found[name] = Validation(plan(name, documents, chosen), int(utf8_bytes))
    return data, found


def open_corpus(key: str, folder: Path, tokenizer: Any) -> Corpus:
    """Another finished corpus; UserError, with its `key`, where it is not, or has another tokenizer."""
    from core.model.loading import load_tokenizer

    corpus = Corpus(folder)
    manifest.read(folder / "pack")
    if load_tokenizer(str(corpus.tokenizer)).get_vocab() != tokenizer.get_vocab():
        raise UserError(
            f"{key}: {folder} was tokenised with another tokenizer than the run's. Make it again with"
            " tokenizer.path=… of the run's corpus."
        )
    return corpus
