"""Control tokens are only what a template writes: `</s>` in a question or an answer is text.

Text that people wrote is tokenised as in pretraining: the name of a control token in it is plain text. For
that, the control tokens of the template are written with other names of the same length, in a second
tokenizer that knows only these; so everything else, offsets included, is as if the text were tokenised in one
go. A chat without such names is tokenised by the tokenizer itself.
"""

import json
import re
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from weakref import WeakKeyDictionary

from data.chat.rendering import Placed, Span, as_rendered, looked_for, place

NEVER = re.compile(r"(?!)")
FIRST = 0xF0000
"""The first character of the other names: private ones, in the order of the tokens."""

PROBE = [
    {"role": role, "content": str(number)}
    for number, role in enumerate(("user", "assistant", "user", "assistant"))
]


@dataclass
class ControlTokens:
    """The control tokens of a tokenizer and its template."""

    tokenizer: Any
    names: tuple[str, ...]

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """Any of them, the longest that is there."""
        names = sorted(self.names, key=len, reverse=True)
        return re.compile("|".join(map(re.escape, names))) if names else NEVER

    @cached_property
    def other_names(self) -> dict[str, str]:
        """The names in the second tokenizer."""
        return {name: chr(FIRST + number) * len(name) for number, name in enumerate(self.names)}

    @cached_property
    def twin(self) -> tuple[Any, dict[int, int]]:
        """The second tokenizer, and its ids of added tokens to those of the tokenizer."""
        from tokenizers import Tokenizer

        spec = json.loads(self.tokenizer.backend_tokenizer.to_str())
        spec |= {"truncation": None, "padding": None}
        for token in spec["added_tokens"]:
            token["content"] = self.other_names.get(token["content"], token["content"])
        made = Tokenizer.from_str(json.dumps(spec))
        ids = ((made.token_to_id(token["content"]), token["id"]) for token in spec["added_tokens"])
        return made, {new: old for new, old in ids if new is not None}


_known: WeakKeyDictionary[Any, tuple[Any, ControlTokens]] = WeakKeyDictionary()


def control_tokens(tokenizer: Any) -> ControlTokens:
    """The tokenizer's special tokens, and the other added tokens that its template writes itself and does not
    look for in contents (as it does for `</think>`)."""
    state = (len(tokenizer), tuple(tokenizer.all_special_tokens), tokenizer.chat_template)
    if (known := _known.get(tokenizer)) and known[0] == state:
        return known[1]
    added = list(tokenizer.added_tokens_decoder.values())
    special = tuple(str(token) for token in added if token.special)
    found = ControlTokens(tokenizer, special)
    try:
        probe = place(tokenizer, as_rendered(tokenizer, PROBE, None), found.pattern)
    except ValueError:  # the template takes no such chat
        pass
    else:
        parsed = looked_for(tokenizer.chat_template) or NEVER
        written = _outside(probe.text, probe.spans)
        turns = [str(t) for t in added if not t.special and str(t) in written and not parsed.search(str(t))]
        found = ControlTokens(tokenizer, (*special, *(turn for turn in turns if turn.strip())))
    _known[tokenizer] = (state, found)
    return found


def tokenise(tokenizer: Any, placed: Placed) -> tuple[list[int], list[tuple[int, int]]]:
    """The ids of a chat's text, and the span of each token in it. ValueError if the tokenizer cannot write a
    control token's name as text."""
    control, text = control_tokens(tokenizer), placed.text
    if not _named_in_contents(control.pattern, placed):
        return tokenise_whole(tokenizer, text)
    if any(FIRST <= ord(character) < FIRST + len(control.names) for character in text):
        raise ValueError("the text has characters for private use and the name of a control token")
    pieces, at = [], 0
    for span in [*placed.spans, Span(len(text), len(text), -1)]:
        outside = control.pattern.sub(lambda match: control.other_names[match[0]], text[at : span.start])
        pieces += [outside, text[span.start : span.stop]]
        at = span.stop
    twin, ids = control.twin
    written = "".join(pieces)
    assert len(written) == len(text)
    found = twin.encode(written, add_special_tokens=False)
    tokens = [ids.get(token, token) for token in found.ids]
    controls = {tokenizer.convert_tokens_to_ids(name) for name in control.names}
    others = control.other_names.values()
    expected = sum(len(re.findall(f"(?:{name})", written)) for name in others)
    if sum(token in controls for token in tokens) != expected:
        raise ValueError("the tokenizer cannot write the name of a control token as text")
    return tokens, found.offsets


def tokenise_whole(tokenizer: Any, text: str) -> tuple[list[int], list[tuple[int, int]]]:
    """The ids of a text in which every control token is one, and the span of each token."""
    found = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    return found["input_ids"], found["offset_mapping"]


def _named_in_contents(pattern: re.Pattern[str], placed: Placed) -> bool:
    """Whether what people wrote has the name of a control token, whole or in part."""
    spans = iter([*placed.spans, Span(len(placed.text), len(placed.text), -1)])
    span = next(spans)
    for match in pattern.finditer(placed.text):
        while span.stop <= match.start() < len(placed.text) and span.part >= 0:
            span = next(spans)
        if span.start < match.end() and span.part >= 0:
            return True
    return False


def _outside(text: str, spans: list[Span]) -> str:
    """What the template wrote, contents replaced by a space."""
    pieces, at = [], 0
    for span in spans:
        pieces.append(text[at : span.start])
        at = span.stop
    return " ".join([*pieces, text[at:]])
