"""Convert the tokenizer of Meta's LLaMA to the files that transformers reads.

LLaMA 1 and 2 have a SentencePiece model, which transformers reads unchanged. LLaMA 3 has a list of byte
strings in the order of their merges (one per line: base64, rank), from which tokenizer.json is built.
"""

import base64
import json
import shutil
from pathlib import Path
from typing import Any

from core.errors import UserError

SPLIT_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""LLaMA 3's pre-tokenizer: how text is split before bytes are merged."""
NAMED = {
    "3": {0: "begin_of_text", 1: "end_of_text", 6: "start_header_id", 7: "end_header_id", 9: "eot_id"},
    "3.1": {
        0: "begin_of_text", 1: "end_of_text", 4: "finetune_right_pad_id", 6: "start_header_id",
        7: "end_header_id", 8: "eom_id", 9: "eot_id", 10: "python_tag",
    },
}  # fmt: skip
"""Of the 256 special tokens after the ordinary ones, those that are not reserved."""


def write_tokenizer(source: Path, folder: Path, version: str, context: int) -> None:
    """Write the tokenizer's files to `folder`; UserError if it is missing or damaged."""
    paths = [place / "tokenizer.model" for place in (source, source.parent)]
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        raise UserError(f"{paths[0]} is missing. It comes with the weights; copy it there.")
    third = version >= "3"
    config: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast" if third else "LlamaTokenizer",
        "bos_token": "<|begin_of_text|>" if third else "<s>",
        "eos_token": "<|end_of_text|>" if third else "</s>",
        "clean_up_tokenization_spaces": False,
        "model_max_length": context,
    }
    if third:
        _write_merges(path, folder / "tokenizer.json", "3" if version == "3" else "3.1")
    else:
        config |= {"unk_token": "<unk>", "add_bos_token": True, "add_eos_token": False, "legacy": False}
        shutil.copyfile(path, folder / "tokenizer.model")
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", "utf-8")


def _write_merges(path: Path, file: Path, version: str) -> None:
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors

    ranks = _read_ranks(path)
    characters = _byte_characters()
    spelled = {token: "".join(characters[byte] for byte in token) for token in ranks}
    merges = []
    for token, rank in ranks.items():
        halves = [(token[:at], token[at:]) for at in range(1, len(token))]
        known = [(ranks[a], ranks[b], a, b) for a, b in halves if a in ranks and b in ranks]
        merges += [(rank, first, second, spelled[a], spelled[b]) for first, second, a, b in known]
    merges.sort()
    vocabulary = {spelled[token]: rank for token, rank in ranks.items()}
    pairs = [(a, b) for *_, a, b in merges]
    tokenizer = Tokenizer(models.BPE(vocabulary, pairs, ignore_merges=True))
    cut = pre_tokenizers.Split(Regex(SPLIT_PATTERN), behavior="isolated", invert=False)
    of_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([cut, of_bytes])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in special_tokens(version)])
    begin = "<|begin_of_text|>"
    tokenizer.post_processor = processors.Sequence([
        processors.ByteLevel(trim_offsets=False),
        processors.TemplateProcessing(
            single=f"{begin} $A", pair=f"{begin} $A {begin}:1 $B:1", special_tokens=[(begin, len(ranks))]
        ),
    ])  # fmt: skip
    tokenizer.save(str(file))


def special_tokens(version: str) -> list[str]:
    """The 256 special tokens of LLaMA 3 ("3") or of 3.1 and later ("3.1"), in the order of their ids."""
    names = []
    reserved = 0
    for number in range(256):
        if number in NAMED[version]:
            names.append(f"<|{NAMED[version][number]}|>")
        else:
            names.append(f"<|reserved_special_token_{reserved}|>")
            reserved += 1
    return names


def _read_ranks(path: Path) -> dict[bytes, int]:
    try:
        lines = [line.split() for line in path.read_bytes().splitlines() if line]
        ranks = {base64.b64decode(token, validate=True): int(rank) for token, rank in lines}
    except ValueError as error:
        raise UserError(
            f"{path} is not a LLaMA 3 tokenizer, or is damaged ({error}). Download it again."
        ) from None
    if sorted(ranks.values()) != list(range(len(lines))) or not ranks.keys() >= {
        bytes([n]) for n in range(256)
    }:
        raise UserError(f"{path}: the {len(lines):,} tokens are not numbered from 0, or a byte is missing.")
    return ranks


def _byte_characters() -> dict[int, str]:
    """A printable character for each byte, as in GPT-2's tokenizer: printable Latin-1 bytes map to
    themselves, the others to code points from 256 on."""
    printed = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printed]
    return {byte: chr(byte) for byte in printed} | {byte: chr(256 + at) for at, byte in enumerate(others)}
