"""Documents of packed corpora as blocks: those to train on, and the held-out ones that validation reads.

corpus/pack/train ──▶ Blocks          corpus/pack/validation ──▶ some documents ──▶ Blocks, and their UTF-8
bytes
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.errors import UserError
from core.provenance import manifest
from data.pipeline import Corpus

if TYPE_CHECKING:
    from core.train.logger import Log
    from core.train.validation import Validation
    from data.packing.packed_dataset import Blocks


def require_corpus(key: str, folder: Path) -> Corpus:
    """A finished corpus; UserError, with the configuration's `key`, if it is missing."""
    if not (folder / "pack" / manifest.NAME).exists():
        raise UserError(f"{key}: {folder}: no finished corpus. Make it with `python -m data run`.")
    return Corpus(folder)


def open_corpus(key: str, folder: Path, tokenizer: Any) -> Corpus:
    """A finished corpus; UserError, with the configuration's `key`, if it is missing or the run's `tokenizer`
    does not have the same ids."""
    from core.model.loading import load_tokenizer

    corpus = require_corpus(key, folder)
    known = tokenizer.get_vocab()
    own = load_tokenizer(str(corpus.tokenizer)).get_vocab()
    if own.items() - known.items():
        raise UserError(
            f"{key}: {folder} was tokenised with another tokenizer than the run's. Make it again with"
            " tokenizer.path=… of the run's corpus."
        )
    return corpus


def blocks(
    name: str, split: Path, length: int, padding_id: int, log: "Log", *, packing: Any, chosen: Any = None
) -> "Blocks":
    """The `chosen` documents of a split (all if None) as blocks of `length` tokens; logs what they are."""
    from data.packing.indexed_dataset import Documents
    from data.packing.packed_dataset import Blocks

    made = Blocks(Documents(split), length, packing=packing, padding_id=padding_id, chosen=chosen)
    log.line(
        f"{name}: {len(made.chosen):,} documents, {made.trained_tokens:,} tokens,"
        f" {len(made):,} blocks of {length:,} ({made.fill:.1%} full)"
    )
    return made


def held_out(
    name: str,
    corpus: Corpus,
    length: int,
    padding_id: int,
    log: "Log",
    *,
    tokens: int | None,
    seed: int,
    packing: Any = "best-fit",
) -> dict[str, "Validation"]:
    """About `tokens` held-out tokens of a corpus under their `name`; empty if the corpus holds none out."""
    import numpy as np

    from core.train.validation import Validation
    from data.packing.indexed_dataset import Documents
    from data.packing.packed_dataset import choose_documents

    split = corpus.split("validation")
    documents = Documents(split)
    if not len(documents):
        log.line(f"{name}: no documents are held out (data.pack.validation_share)")
        return {}
    chosen = choose_documents(documents, tokens, seed)
    utf8_bytes = int(np.load(split.with_suffix(".bytes.npy"))[chosen].sum())
    return {
        name: Validation(
            blocks(name, split, length, padding_id, log, packing=packing, chosen=chosen), utf8_bytes
        )
    }
