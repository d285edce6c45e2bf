"""A tokenizer as llama.cpp keeps it: tokens, types, and SentencePiece's scores or merges of bytes.

What is written is the tokenizer that transformers loads from the folder, whatever files it is made of.
llama.cpp merges by the score of the piece that results, tokenizers by the rank of the pair. The two agree
where the pairs of a piece follow each other and no pair is missing, as in every SentencePiece BPE model; that
is checked. A byte-level tokenizer is split into words by a regular expression, of which llama.cpp knows a
list; another one is refused.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from core.errors import UserError, printable_name

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
"""Types of tokens in GGUF."""
FILES = ("tokenizer.json", "tokenizer.model", "vocab.json")
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
NO_MERGE = -1e6
"""The score of a token that no pair makes."""


@dataclass
class Vocabulary:
    """What goes into the file."""

    model: str
    """`llama` for SentencePiece, `gpt2` for byte-level BPE."""
    tokens: list[str]
    types: list[int]
    special_ids: dict[str, int]
    """bos, eos, eot, unk and pad."""
    add_bos: bool
    add_eos: bool
    template: str | None = None
    scores: list[float] | None = None
    space: str = "never"
    """Which stretches of text between control tokens get a space before them: never, first or always."""
    merges: list[str] | None = None
    pre: str = "default"
    stops: list[str] = field(default_factory=list)
    """The texts of all tokens that end an answer."""
    notes: list[str] = field(default_factory=list)
    """Where llama.cpp's ids differ from transformers', for the user."""

    def write(self, writer: Any) -> None:
        """Add the keys to a GGUFWriter."""
        writer.add_tokenizer_model(self.model)
        writer.add_tokenizer_pre(self.pre)
        writer.add_token_list(self.tokens)
        writer.add_token_types(self.types)
        if self.scores is not None:
            writer.add_token_scores(self.scores)
            writer.add_add_space_prefix(self.space == "always")
        if self.merges is not None:
            writer.add_token_merges(self.merges)
        for name, number in self.special_ids.items():
            getattr(writer, f"add_{name}_token_id")(number)
        writer.add_add_bos_token(self.add_bos)
        writer.add_add_eos_token(self.add_eos)
        if self.template:
            writer.add_chat_template(self.template)


def read(folder: Path, rows: int) -> Vocabulary:
    """The tokenizer of a folder, with `rows` tokens (those of the embedding); UserError if llama.cpp has no
    such tokenizer."""
    from core.model.loading import load_tokenizer

    if not any((folder / name).is_file() for name in FILES):
        raise UserError(f"{folder}: no tokenizer: none of {', '.join(FILES)} is there. Copy the base's.")
    loaded = load_tokenizer(str(folder))
    if not hasattr(loaded, "backend_tokenizer"):
        raise UserError(
            f"{folder}: the tokenizer ({type(loaded).__name__}) cannot be saved as tokenizer.json."
        )
    spec = json.loads(loaded.backend_tokenizer.to_str())
    model, place = spec["model"], f"{folder}: the tokenizer"
    if model["type"] != "BPE" or any(model.get(k) for k in ("dropout", "continuing_subword_prefix",
                                                            "end_of_word_suffix")):  # fmt: skip
        raise UserError(f"{place}'s model ({model['type']}) is not BPE as llama.cpp has it.")
    tokens, types = _tokens(spec, rows, place)
    found = Vocabulary("llama", tokens, types, {}, *_ends(loaded, place))
    if model["byte_fallback"]:
        _sentencepiece(found, spec, place)
    else:
        _byte_level(found, spec, place)
    _special(found, loaded, folder)
    _template(found, loaded, spec)
    return found


def _tokens(spec: dict[str, Any], rows: int, place: str) -> tuple[list[str], list[int]]:
    """The text and the type of each id below `rows`; ids that the tokenizer does not use are filled."""
    by_id: dict[int, str] = {}
    added = {each["id"]: each for each in spec["added_tokens"]}
    listed = [*spec["model"]["vocab"].items(), *((each["content"], n) for n, each in added.items())]
    for text, number in listed:
        if by_id.setdefault(number, text) != text:
            raise UserError(f"{place}: id {number} is {by_id[number]!a} and {text!a}. Save it again.")
        if number >= rows:
            raise UserError(
                f"{place}: {text!a} has id {number:,}, but the embedding has {rows:,} rows. The tokenizer"
                " belongs to another model, or the embedding was not resized (resize_token_embeddings)."
            )
    if len(set(by_id.values())) < len(by_id):
        twice = next(text for text in by_id.values() if list(by_id.values()).count(text) > 1)
        raise UserError(f"{place}: {twice!a} has two ids, which llama.cpp refuses.")
    for each in added.values():
        if flags := [flag for flag in ("lstrip", "rstrip", "single_word") if each[flag]]:
            raise UserError(
                f"{place}: added token {each['content']!a} has {', '.join(flags)}, which GGUF cannot express."
                " Set it to false in tokenizer.json and tokenizer_config.json if your texts allow."
            )
    tokens, types = [], []
    used = set(by_id.values())
    for number in range(rows):
        if number in by_id:
            tokens.append(by_id[number])
            special = number in added and (CONTROL if added[number]["special"] else USER_DEFINED)
            types.append(special or NORMAL)
            continue
        filler = f"[UNUSED_{number}]"
        while filler in used:
            filler = f"[{filler}]"
        tokens.append(filler)
        types.append(UNUSED)
    return tokens, types


def _ends(loaded: Any, place: str) -> tuple[bool, bool]:
    """Whether a text gets a token before it, and one behind it."""
    plain, whole = (loaded("a", add_special_tokens=more)["input_ids"] for more in (False, True))
    for bos in (False, True):
        for eos in (False, True):
            start, end = [loaded.bos_token_id] * bos, [loaded.eos_token_id] * eos
            if whole == [*start, *plain, *end]:
                return bos, eos
    raise UserError(f"{place} surrounds a text by {whole}, not by its BOS and EOS tokens.")


def _sentencepiece(found: Vocabulary, spec: dict[str, Any], place: str) -> None:
    """Scores instead of merges, and the space before a text."""
    model = spec["model"]
    bytes_of = {f"<0x{number:02X}>" for number in range(256)}
    if missing := sorted(bytes_of - model["vocab"].keys()):
        raise UserError(f"{place} has no token {missing[0]}, without which llama.cpp loses characters.")
    if model.get("ignore_merges"):
        raise UserError(f"{place}: ignore_merges=true with byte_fallback: llama.cpp merges all the same.")
    found.types = [
        BYTE if kind == NORMAL and text in bytes_of else kind
        for text, kind in zip(found.tokens, found.types, strict=True)
    ]
    found.scores = _scores(found, _pairs(model), place)
    found.space = _adds_space(spec, place)


def _pairs(model: dict[str, Any]) -> list[tuple[str, str]]:
    pairs = [each.split(" ", 1) if isinstance(each, str) else each for each in model["merges"]]
    return [(first, second) for first, second in pairs]


def _scores(found: Vocabulary, pairs: list[tuple[str, str]], place: str) -> list[float]:
    """A score for each token, with which llama.cpp merges the same pairs in the same order."""
    order: dict[str, int] = {}
    last = ""
    for first, second in pairs:
        made = first + second
        if made != last and made in order:
            raise UserError(
                f"{place}: the pairs that make {made!a} do not follow each other, so no score per token says"
                " the same as the merges. This is not a SentencePiece model; llama.cpp cannot be given it."
            )
        order.setdefault(made, len(order))
        last = made
    plain = {text for text, kind in zip(found.tokens, found.types, strict=True) if kind == NORMAL}
    known = set(pairs)
    for text in plain:
        for at in range(1, len(text)):
            pair = text[:at], text[at:]
            if pair not in known and pair[0] in plain and pair[1] in plain:
                raise UserError(
                    f"{place}: {pair[0]!a} and {pair[1]!a} are tokens and so is {text!a}, but they are not"
                    " merged. This is not a SentencePiece model; llama.cpp would merge them."
                )
    return [-float(order[text]) if text in order else NO_MERGE for text in found.tokens]


def _adds_space(spec: dict[str, Any], place: str) -> str:
    """Which stretches of text get a space before them."""
    before, splits = _steps(spec, "normalizer"), _steps(spec, "pre_tokenizer")
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    prepend = {"type": "Prepend", "prepend": "▁"}
    if not splits and before == [replace]:
        return "never"
    if not splits and before == [prepend, replace]:
        if odd := [each["content"] for each in spec["added_tokens"] if each["normalized"]]:
            raise UserError(
                f"{place}: added token {odd[0]!a} is normalized, so that a space before it is part of it,"
                ' which GGUF cannot express. Set "normalized": false in tokenizer.json.'
            )
        return "always"
    one = splits[0] if len(splits) == 1 and not before else {}
    if one.get("type") == "Metaspace" and one["replacement"] == "▁" and not one["split"]:
        return str(one["prepend_scheme"])
    raise UserError(f"{place}: {_listed(before, splits)} before merging: llama.cpp treats spaces otherwise.")


def _byte_level(found: Vocabulary, spec: dict[str, Any], place: str) -> None:
    """Merges of bytes, and the name that llama.cpp has for how text is split before."""
    model = spec["model"]
    before, splits = _steps(spec, "normalizer"), _steps(spec, "pre_tokenizer")
    if before == [{"type": "NFC"}]:
        found.notes.append("text that is not in Unicode's NFC is tokenised as it is, not composed first")
    elif before:
        raise UserError(f"{place}: normalizer {_listed(before, [])}: llama.cpp does not normalise text.")
    if any(step["type"] == "ByteLevel" and step["add_prefix_space"] for step in splits):
        raise UserError(f"{place}: add_prefix_space=true of ByteLevel: llama.cpp adds no space.")
    name = _pre_tokenizer(splits, bool(model.get("ignore_merges")))
    if name is None:
        raise UserError(
            f"{place}: pre_tokenizer {_listed([], splits)} (ignore_merges={bool(model.get('ignore_merges'))})"
            " is none that llama.cpp is known to have. Known: those of LLaMA 3, Qwen 2 and 3, GPT-2, SmolLM."
        )
    found.model, found.pre = "gpt2", name
    found.merges = [f"{first} {second}" for first, second in _pairs(model)]


def _pre_tokenizer(splits: list[dict[str, Any]], ignore_merges: bool) -> str | None:
    """llama.cpp's name for how text is split into words."""
    kinds = [step["type"] for step in splits]
    if not splits or kinds[-1] != "ByteLevel":
        return None
    by_regex = splits[-1]["use_regex"]
    if kinds == ["ByteLevel"] and by_regex and not ignore_merges:
        return "gpt-2"
    if kinds == ["Digits", "ByteLevel"] and by_regex and splits[0]["individual_digits"] and not ignore_merges:
        return "smollm"
    if kinds == ["Split", "ByteLevel"] and not by_regex:
        split = splits[0]
        pattern = split["pattern"].get("Regex")
        if split["behavior"] == "Isolated" and not split["invert"]:
            names = {(LLAMA3, True): "llama-bpe", (LLAMA3, False): "smaug-bpe", (QWEN2, False): "qwen2"}
            return names.get((pattern, ignore_merges))
    return None


def _steps(spec: dict[str, Any], key: str) -> list[dict[str, Any]]:
    """The normalizers or pre-tokenizers, one after the other."""
    part = spec[key]
    steps: list[dict[str, Any]] = []
    if part:
        steps = part.get("normalizers") or part.get("pretokenizers") or [part]
    return steps


def _listed(*steps: list[dict[str, Any]]) -> str:
    texts = [
        printable_name(str(step.get("pattern", {}).get("Regex") or step["type"]))
        for several in steps
        for step in several
    ]
    return ", ".join(texts) or "none"


def _special(found: Vocabulary, loaded: Any, folder: Path) -> None:
    """The ids of special tokens, and what ends an answer: also what generation_config.json adds."""
    for name in ("bos", "eos", "unk", "pad"):
        number = getattr(loaded, f"{name}_token_id")
        if number is not None:
            found.special_ids[name] = number
            if name == "unk" and found.model == "llama":
                found.types[number] = UNKNOWN
    try:
        ends = json.loads((folder / "generation_config.json").read_text("utf-8")).get("eos_token_id")
    except (OSError, ValueError, AttributeError):
        ends = None
    ends = ends if isinstance(ends, list) else [ends]
    known = [number for number in ends if type(number) is int and 0 <= number < len(found.tokens)]
    others = [number for number in known if number != found.special_ids["eos"]]
    if others:
        found.special_ids["eot"] = others[0]
    found.stops = [found.tokens[number] for number in dict.fromkeys([found.special_ids["eos"], *others])]


def _template(found: Vocabulary, loaded: Any, spec: dict[str, Any]) -> None:
    """The chat template, and what it means for the tokens before a text.

    transformers tokenises a rendered chat without adding tokens; llama.cpp adds BOS where it is told so.
    """
    template = loaded.chat_template
    found.template = template.get("default") if isinstance(template, dict) else template
    if not found.template:
        if found.space == "first":
            found.space = "always"
            found.notes.append(
                "a text that begins with a space gets one more, and so does text behind a control token;"
                " transformers adds it to the beginning of other texts only"
            )
        elif found.space == "always" and _steps(spec, "pre_tokenizer"):
            found.notes.append("a text that begins with a space gets one more; with transformers it does not")
        return
    text = _rendered(loaded)
    if text is not None:
        found.add_bos = found.add_bos and text.startswith(loaded.bos_token)
        found.add_eos = False
    if found.space == "first":
        found.space = "never"
        special = tuple(each["content"] for each in spec["added_tokens"])
        if text is not None and not text.startswith((*special, " ")):
            found.template = "{{ ' ' }}" + found.template
        found.notes.append(
            "chats are tokenised as by transformers; a text without the template needs a space before it,"
            " which transformers adds by itself"
        )


def _rendered(loaded: Any) -> str | None:
    """A short chat as text; None if the template refuses it."""
    try:
        chat = [{"role": "user", "content": "a"}]
        return str(loaded.apply_chat_template(chat, tokenize=False, add_generation_prompt=True))
    except Exception:  # of the template, which may raise what it likes
        return None
