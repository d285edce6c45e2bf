"""What happens to a question: gate, retrieval, prompt, and what is checked of the answer. No HTTP here."""

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from core.errors import UserError
from data.chat.grounded import Source, question_language, source_material, source_name
from data.chat.messages import merged
from serve.retrieval.embedding import ServerError
from serve.retrieval.search import Hit, Index, NoWordsError, filter_of
from serve.service.limits import Refusal

if TYPE_CHECKING:
    from serve.gate.classifier import Gate
    from serve.retrieval.opensearch import OpenSearch

GateMode = Literal["warn", "refuse", "off"]
SOURCES = 5
PROMPT_BYTES = 6000
"""Of sources, and of the conversation before the question, each in UTF-8."""
LONGEST_SEARCH = 20_000
"""Characters of a message that are searched for."""

ABSTAINED = {
    "en": "This assistant answers questions of its own field only. This does not look like one of them.",
    "zh": "本助手只回答其专业领域内的问题。该问题似乎不属于此领域，因此不作回答。",
    "ko": "이 도우미는 담당 분야의 질문에만 답합니다. 해당 분야가 아닌 것으로 보입니다.",
    "ja": "このアシスタントは担当分野の質問にのみ回答します。この質問は対象外と思われるため、回答しません。",
}
"""The answer to a question that the gate refuses, by the language of the question."""


@dataclass
class Prepared:
    """A question that is ready for an engine."""

    prompt: list[dict[str, str]]
    """The messages for the engine."""
    sources: list[dict[str, Any]] = field(default_factory=list)
    """As the client gets them: `number`, `name`, `id`, `title`, `date`, `language`, `part`, `label`, `text`
    and `found` (where the question's terms stand in it)."""
    gate: dict[str, Any] | None = None
    """`accepted`, `probability` and `mode` (warn, refuse); None without a gate."""
    abstained: str | None = None
    """The answer, if the gate refuses."""
    retrieval_seconds: float | None = None


@dataclass
class Assistant:
    """What is in front of the engine."""

    index: "Index | OpenSearch | None" = None
    gate: "Gate | None" = None
    gate_mode: GateMode = "warn"
    sources: int = SOURCES
    prompt_bytes: int = PROMPT_BYTES
    input_slot: bool = False
    """Whether the model's template has a slot `input`, in which the sources stand."""

    def prepare(self, messages: Sequence[dict[str, str]], retrieval: Any = None) -> Prepared:
        """The prompt for a conversation; `retrieval` is False for none, or a filter (see `filter_of`). Raises
        Refusal if the filter means nothing, or the index does not answer."""
        users = [message["content"] for message in messages if message["role"] == "user"]
        gate = self._judge(users)
        if gate and not gate["accepted"] and self.gate_mode == "refuse":
            return Prepared([], gate=gate, abstained=ABSTAINED[question_language(users[-1])])
        start = time.monotonic()
        searched = self.index is not None and self.sources > 0 and retrieval is not False
        hits = self.search(users, self.sources, retrieval) if searched else []
        seconds = time.monotonic() - start if searched else None
        sources = self._chosen(hits)
        language = question_language(users[-1])
        material = source_material([Source(each["name"], each["text"]) for each in sources], language)
        prompt = [dict(message) for message in self._recent(messages)]
        if material:
            asked = prompt[-1] | {"input": material}
            prompt[-1] = asked if self.input_slot else merged(asked)  # as in training
        return Prepared(prompt, sources, gate, None, seconds)

    def search(self, users: Sequence[str], hits: int, retrieval: Any = None) -> list[Hit]:
        """Hits for the last of a user's messages; the one before it says what `it` is."""
        if self.index is None:
            return []
        asked = [text[:LONGEST_SEARCH] for text in users[-2:]]
        try:
            wanted = filter_of(self.index, retrieval)
            return self.index.search("\n".join([asked[-1], *asked]), hits, wanted)
        except NoWordsError:
            return []
        except ServerError as error:
            print(error, file=sys.stderr, flush=True)
            raise Refusal(502, "the index cannot be searched at the moment") from None
        except UserError as error:
            raise Refusal(400, str(error)) from None

    def _judge(self, users: Sequence[str]) -> dict[str, Any] | None:
        """What the gate says of the last question, by itself or with the one before it (`And in Korea?`)."""
        if self.gate is None or self.gate_mode == "off":
            return None
        asked = [users[-1], *(["\n".join(users[-2:])] if len(users) > 1 else [])]
        probability = max(map(self.gate.probability, asked))
        accepted = any(map(self.gate.accepts, asked))
        return {"accepted": accepted, "probability": round(probability, 4), "mode": self.gate_mode}

    def _chosen(self, hits: Sequence[Hit]) -> list[dict[str, Any]]:
        """The best passage of each hit, as long as they fit; the first is cut if it must be."""
        chosen: list[dict[str, Any]] = []
        left = self.prompt_bytes
        for hit in hits:
            passage = hit.passages[0]
            text = passage["text"]
            if not chosen and len(text.encode()) > left:
                text = text.encode()[:left].decode("utf-8", "ignore")
            if len(text.encode()) > left:
                continue
            left -= len(text.encode())
            shown = {name: passage[name] for name in ("id", "language", "part", "label")}
            shown |= {"number": len(chosen) + 1, "title": hit.title, "date": hit.date, "text": text}
            shown["found"] = [span for span in passage["found"] if span[1] <= len(text)]
            chosen.append(shown | {"name": source_name(shown)})
        return chosen

    def _recent(self, messages: Sequence[dict[str, str]]) -> list[dict[str, str]]:
        """The system message, the question, and of the turns before it the last that fit."""
        system = [message for message in messages[:1] if message["role"] == "system"]
        left = self.prompt_bytes
        kept = [messages[-1]]
        for message in reversed(messages[len(system) : -1]):
            left -= len(message["content"].encode())
            if left < 0:
                break
            kept.insert(0, message)
        while len(kept) > 1 and kept[0]["role"] != "user":
            kept.pop(0)
        return [*system, *kept]
