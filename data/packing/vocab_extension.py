"""Add pieces to a LLaMA tokenizer, and rows for them to the model: once, before training.

    python -m data tokenizer extend --base MODEL --vocabulary-size 20000 --output DIR FILE_OR_FOLDER ...

SentencePiece pieces are trained on the corpus; those that the base lacks are appended with score 0, so that
every old id is unchanged. A base with weights gets new rows in both embeddings: the mean of the rows of the
old pieces that spelt the new one (arXiv:2407.05841), and the mean of all rows for padding to a multiple of
64. A base that is only a `….model` file gives only a tokenizer.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from core.errors import UserError
from core.provenance import manifest


def main(arguments: list[str]) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m data tokenizer extend",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("sources", nargs="+", metavar="FILE_OR_FOLDER")
    parser.add_argument(
        "--base", type=Path, required=True, metavar="DIR", help="model folder, or .model file"
    )
    parser.add_argument(
        "--vocabulary-size", type=int, required=True, metavar="N", help="number of pieces to train"
    )
    parser.add_argument("--output", type=Path, required=True, metavar="DIR")
    given = parser.parse_args(arguments)
    extend(given.base, given.sources, given.vocabulary_size, given.output)


def extend(base: Path, paths: Sequence[str], vocabulary_size: int, output: Path) -> None:
    """Train, merge, write tokenizer and model to `output`, and print the gain."""
    import tempfile

    from core.config.loader import load
    from data.packing.tokenizer import TokenizerConfig, prepare_tokenizer, record_texts, train_sentencepiece
    from data.readers.ingest import ingest
    from data.readers.source import Source
    from data.readers.source_files import input_hashes
    from data.record_store import read_records

    old = base if base.suffix == ".model" else base / "tokenizer.model"
    if not old.is_file():
        raise UserError(f"{old}: file not found. Only SentencePiece models can be extended.")
    config = load(TokenizerConfig, None, [f"vocabulary_size={vocabulary_size}"])
    sources = [Source(path=path) for path in paths]
    inputs = input_hashes(sources) | manifest.hash_files([old])
    settings = {"base": str(base), "tokenizer": config.model_dump(mode="json")}
    with (
        manifest.build(output, step="tokenizer", config=settings, inputs=inputs) as built,
        tempfile.TemporaryDirectory() as scratch,
    ):
        records, trained = Path(scratch) / "records", Path(scratch) / "new.model"
        merged = Path(scratch) / "merged.model"
        ingest(sources, records, None)
        train_sentencepiece(config, record_texts(read_records(records)), trained)
        merged.write_bytes(merge(old.read_bytes(), trained.read_bytes()))
        prepare_tokenizer(load(TokenizerConfig, None, [f"path={merged}"]), iter(()), built.path)
        built.counts = measure(old, merged, list(record_texts(read_records(records))))
        if base.suffix != ".model":
            built.counts["rows"] = extend_model(base, old, merged, built.path)
            made = manifest.read(base) if (base / manifest.NAME).exists() else {}
            built.sources = made.get("sources") or {}  # the licences of what the base was trained on
    counts = built.counts
    print(f"{counts['pieces_before']:,} pieces before, {counts['pieces']:,} after: {output}")
    before, after = counts["tokens_per_character_before"], counts["tokens_per_character"]
    print(f"tokens per character: {before} before, {after} after")


def merge(base: bytes, more: bytes) -> bytes:
    """A serialised SentencePiece model: the pieces of `base`, then the new ones of `more` with score 0."""
    from sentencepiece import sentencepiece_model_pb2 as format

    model, other = format.ModelProto(), format.ModelProto()
    model.ParseFromString(base)
    other.ParseFromString(more)
    known = {piece.piece for piece in model.pieces}
    for piece in other.pieces:
        if piece.piece not in known:
            model.pieces.add(piece=piece.piece, score=0.0)
            known.add(piece.piece)
    merged: bytes = model.SerializeToString()
    return merged


def measure(old: Path, new: Path, texts: Sequence[str], most: int = 5_000_000) -> dict[str, Any]:
    """Pieces, and tokens per character in the first `most` characters of the texts, before and after."""
    from sentencepiece import SentencePieceProcessor

    before, after = (SentencePieceProcessor(model_file=str(file)) for file in (old, new))
    characters = tokens_before = tokens = 0
    for text in texts:
        characters += len(text)
        tokens_before += len(before.encode(text))
        tokens += len(after.encode(text))
        if characters >= most:
            break
    return {
        "pieces_before": before.get_piece_size(),
        "pieces": after.get_piece_size(),
        "tokens_per_character_before": round(tokens_before / max(1, characters), 4),
        "tokens_per_character": round(tokens / max(1, characters), 4),
    }


def extend_model(base: Path, old: Path, new: Path, folder: Path) -> int:
    """Write the model of `base` with rows for all pieces of `new` to `folder`; returns the number of rows."""
    import torch
    from sentencepiece import SentencePieceProcessor
    from transformers import AutoModelForCausalLM

    before, after = (SentencePieceProcessor(model_file=str(file)) for file in (old, new))
    model = AutoModelForCausalLM.from_pretrained(base, dtype="auto", trust_remote_code=False)
    first, pieces = before.get_piece_size(), after.get_piece_size()
    rows = -(-max(pieces, model.config.vocab_size) // 64) * 64
    spelt = [spelling(before, after.id_to_piece(i)) for i in range(first, pieces)]
    tied = model.get_input_embeddings().weight is model.get_output_embeddings().weight
    old_weights = [
        layer.weight.detach().float().clone()
        for layer in (model.get_input_embeddings(), model.get_output_embeddings())
    ]
    model.resize_token_embeddings(rows, mean_resizing=False)
    with torch.no_grad():
        for layer, weight in zip(
            (model.get_input_embeddings(), model.get_output_embeddings()), old_weights, strict=True
        ):
            layer.weight[first:] = weight[:first].mean(0).to(layer.weight.dtype)
            for number, ids in enumerate(spelt, first):
                layer.weight[number] = weight[ids].mean(0).to(layer.weight.dtype)
            if tied:
                break
    model.save_pretrained(folder)
    return int(rows)


def spelling(model: Any, piece: str) -> list[int]:
    """The old ids that spell a piece inside a text; a line break before it avoids the space that
    SentencePiece adds at the start."""
    mark = model.encode("\n")
    return list(model.encode("\n" + piece.replace("▁", " ")))[len(mark) :]
