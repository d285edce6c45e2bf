"""SentencePiece's BPE with a memory of words: several times faster where texts have spaces, the same ids.

    text ──cut before spaces and line breaks──▶ words ──known?──▶ ids
                                                      ──else──▶ SentencePiece ──▶ ids

BPE merges two neighbouring symbols only if together they are a piece. If no piece has a space after another
character, or a line break beside one, then no merge crosses such a cut, and the ids of a text are those of
its words. `word_encoder` proves that for a model before it is used; it also needs what LLaMA's tokenizer has:
the text as it is (no normalisation), a space put before it, and bytes for unknown characters.
"""

import re
from collections.abc import Callable
from typing import Any

MOST_WORDS = 1 << 18
"""Words in memory, about 50 MB; when there are more, it begins anew."""
LONGEST_WORD = 40
"""Characters; longer ones hardly recur."""
LEAST_SPACES = 1 / 15
"""The share of spaces in a text from which on words are looked up: below it they are lines of Chinese."""

WORD = re.compile(r"\n+[^ \n]*| +[^ \n]+")
SPACE = "\u2581"


def word_encoder(model: Any) -> Callable[[str], list[int] | None] | None:
    """A function from a text to its ids, or to None for a text that SentencePiece should encode as a whole;
    None if the model's ids are not proven to be those of its words."""
    if not _is_cut_at_spaces(model):
        return None
    known: dict[str, list[int]] = {}

    def encode(text: str) -> list[int] | None:
        if text.count(" ") < LEAST_SPACES * len(text):
            return None
        if " \n" in text or text[:1] in " \n" or text[-1] == " ":
            return None
        ids: list[int] = []
        for word in WORD.findall(f" {text}"):
            found = known.get(word)
            if found is None:
                # SentencePiece puts a space before a text: it stands for the word's own, or is dropped.
                found = model.encode(word[1:]) if word[0] == " " else model.encode(word)[1:]
                if len(word) <= LONGEST_WORD:
                    if len(known) == MOST_WORDS:
                        known.clear()
                    known[word] = found
            ids += found
        return ids

    return encode


def _is_cut_at_spaces(model: Any) -> bool:
    try:
        from sentencepiece.sentencepiece_model_pb2 import ModelProto
    except ImportError:  # without protobuf
        return False
    made = ModelProto.FromString(model.serialized_model_proto())
    trainer, normalizer = made.trainer_spec, made.normalizer_spec
    settings = (
        trainer.model_type == trainer.BPE
        and trainer.byte_fallback
        and not trainer.treat_whitespace_as_suffix
        and not normalizer.precompiled_charsmap
        and not normalizer.normalization_rule_tsv
        and normalizer.add_dummy_prefix
        and normalizer.escape_whitespaces
        and not normalizer.remove_extra_whitespaces
    )
    special = (model.is_control, model.is_unknown, model.is_byte)
    pieces = (
        model.id_to_piece(i) for i in range(model.get_piece_size()) if not any(kind(i) for kind in special)
    )
    return settings and all(
        SPACE not in piece.lstrip(SPACE) and " " not in piece and (piece == "\n" or "\n" not in piece)
        for piece in pieces
    )
