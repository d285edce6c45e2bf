"""Prompts that are too long: examples are left out whole, from the last; instructions and templates stay."""

from pathlib import Path
from typing import Any

import pytest

from eval.models.fit import fit
from eval.models.hf import Local, encode, open_model
from eval.sample import EvalSample
from eval.tasks.task import Request
from tests.eval.models.tiny import write_model

CONTEXT = 128


class WithShots(str):
    """A prompt of an instruction, examples and a question, which knows itself with one example fewer."""

    shots: list[str]

    def __new__(cls, shots: list[str], question: str = "?") -> "WithShots":
        prompt = super().__new__(cls, "".join(["Solve. ", *shots, question]))
        prompt.shots = shots
        return prompt

    @property
    def fewer(self) -> Any:
        return (lambda: WithShots(self.shots[:-1])) if self.shots else None


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Local:
    return open_model(str(write_model(tmp_path_factory.mktemp("model"), context=CONTEXT)))


def request(prompt: str, kind: Any = "generation", reference: str = "r") -> Request:
    sample = EvalSample(task="t", id="1", prediction="", reference=reference)
    return Request(prompt, sample, 8, (), kind, ("A", "B") if kind == "options" else ())


@pytest.mark.parametrize(
    ("kind", "room"), [("generation", CONTEXT - 8), ("options", CONTEXT), ("answer", CONTEXT - 1)]
)
@pytest.mark.parametrize("length", [10, 30, 55, 110, 130])
def test_examples_are_left_out_from_the_last_until_the_prompt_fits(
    local: Local, kind: Any, room: int, length: int
) -> None:
    shots = [f"{i}{'x' * (length - 1)}" for i in range(5)]
    ((fitted, left_out, cut),) = fit(local, [request(WithShots(shots), kind)])
    kept = min(5, (room - len("Solve. ?")) // length)
    assert fitted.prompt == "".join(["Solve. ", *shots[:kept], "?"])
    assert (left_out, cut) == (5 - kept, 0)


def test_a_prompt_that_is_too_long_without_examples_keeps_its_start_and_its_end(local: Local) -> None:
    prompt = "Translate: " + "z" * 500 + " Solution:"
    ((fitted, left_out, cut),) = fit(local, [request(prompt)])
    assert fitted.prompt.startswith("Translate: ")
    assert fitted.prompt.endswith(" Solution:")
    assert len(fitted.prompt) == CONTEXT - 8
    assert (left_out, cut) == (0, len(prompt) - (CONTEXT - 8))


@pytest.mark.parametrize("character", ["一", "😀", "ö"])
def test_characters_of_several_tokens_stay_whole(local: Local, character: str) -> None:
    ((fitted, _, _),) = fit(local, [request(character * 200)])
    assert set(fitted.prompt) == {character}
    size = len(character.encode())
    assert CONTEXT - 8 - size < len(encode(local, fitted.prompt)) <= CONTEXT - 8


def test_the_template_of_a_chat_is_not_cut(tmp_path: Path) -> None:
    chat = open_model(str(write_model(tmp_path, context=CONTEXT)), chat=True)
    ((fitted, _, _),) = fit(chat, [request("Translate: " + "z" * 500)])
    rendered = chat.render(fitted.prompt)
    assert rendered.startswith("[user] Translate: z")
    assert rendered.endswith("\n[assistant] ")
    assert len(encode(chat, rendered)) == CONTEXT - 8


def test_what_fits_and_whole_texts_are_left_as_they_are(local: Local) -> None:
    for asked in (request("short"), request("x" * 500, "text")):
        assert fit(local, [asked]) == [(asked, 0, 0)]
