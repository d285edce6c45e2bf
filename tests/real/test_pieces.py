"""The known merge: LLaMA's 32,000 pieces and 20,000 Chinese ones give 49,953."""

from pathlib import Path

from data.packing.vocab_extension import merge


def test_llama_and_the_chinese_pieces_give_49953(real: Path, tmp_path: Path) -> None:
    from sentencepiece import SentencePieceProcessor

    folder = real / "tokenizers"
    llama = folder / "llama_tokenizer.model"
    other = folder / "chinese_sp.model"
    (tmp_path / "merged.model").write_bytes(merge(llama.read_bytes(), other.read_bytes()))
    merged = SentencePieceProcessor(model_file=str(tmp_path / "merged.model"))
    assert merged.get_piece_size() == 49_953
