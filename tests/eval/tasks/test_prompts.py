"""System texts, examples as text or turns, and the choice of examples."""

import json
from pathlib import Path
from typing import Any

import pytest

from core.errors import UserError
from eval.answers import answer_key
from eval.models.base import Backend
from eval.models.hf import open_model
from eval.models.openai_api import EvalEndpointConfig, generate
from eval.models.openai_api import open_backend as open_endpoint
from eval.tasks.prompt import Prompt, messages
from eval.tasks.task import Request, TaskConfig, requests
from tests.eval.models.server import serve
from tests.eval.models.tiny import write_model

EXAM = TaskConfig(
    layout="choice", data="test/*.csv", shots="dev/*.csv",
        shots_n=2, prompt="关于{subject}：\n\n{shots}{ask}",
    question="{question}\n{options}答案：", metrics=("accuracy",),
)  # fmt: skip
PAIRS = TaskConfig(
    layout="jsonl", data="x.jsonl", shots="dev.jsonl", shots_n=2, prompt="{shots}译：{zh}\n",
        reference="en",
    metrics=("chrf",),
)  # fmt: skip


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for split, numbers in (("dev", range(8)), ("test", (3, 9))):
        (tmp_path / split).mkdir()
        rows = "".join(f"问{i},甲,乙,{'AB'[i % 2]}\n" for i in numbers)
        (tmp_path / split / f"law_{split}.csv").write_text(f"question,A,B,answer\n{rows}", "utf-8")
    for name, numbers in (("dev", range(6)), ("x", (1, 9))):
        lines = [json.dumps({"zh": f"甲{i}", "en": f"a{i}"}) + "\n" for i in numbers]
        (tmp_path / f"{name}.jsonl").write_text("".join(lines), "utf-8")
    return tmp_path


def asked(root: Path, task: TaskConfig, **changes: Any) -> list[Request]:
    return requests("t", task.model_copy(update=changes), root)


def chat(request: Request) -> list[tuple[str, str]]:
    return [(each["role"], each["content"]) for each in messages(request.prompt)]


@pytest.mark.parametrize("task", [EXAM, PAIRS], ids=["choice", "jsonl"])
def test_examples_as_turns_are_the_same_text_and_other_messages(root: Path, task: TaskConfig) -> None:
    system, backend = {"system": "你是专利代理师。"}, Backend({"chat": True}, lambda _: iter(()))
    for text, turns in zip(
        asked(root, task, **system), asked(root, task, shots_as="turns", **system), strict=True
    ):
        assert text.prompt == turns.prompt
        assert text.prompt.startswith("你是专利代理师。\n\n")
        assert [role for role, _ in chat(text)] == ["system", "user"]
        assert [role for role, _ in chat(turns)] == ["system", *["user", "assistant"] * 2, "user"]
        assert answer_key(backend, text) != answer_key(backend, turns)


def test_the_instruction_of_an_exam_stands_in_its_first_message_only(root: Path) -> None:
    options = "甲\nB. 乙\n答案："
    assert chat(asked(root, EXAM, shots_as="turns")[1]) == [
        ("user", f"关于law：\n\n问0\nA. {options}"), ("assistant", "A"),
        ("user", f"问1\nA. {options}"), ("assistant", "B"),
        ("user", f"问9\nA. {options}"),
    ]  # fmt: skip
    assert chat(asked(root, PAIRS, shots_as="turns", prompt="译：{zh}\n")[1]) == [
        ("user", "译：甲0\n"), ("assistant", "a0"), ("user", "译：甲1\n"), ("assistant", "a1"), ("user",
        "译：甲9\n")
    ]  # fmt: skip
    assert chat(asked(root, PAIRS, shots=None, prompt="译：{zh}")[1]) == [("user", "译：甲9")]


@pytest.mark.parametrize("form", ["text", "turns"])
def test_a_question_is_never_its_own_example(root: Path, form: str) -> None:
    for task, own in ((EXAM, "问3"), (PAIRS, "甲1")):
        for seed in (None, 0, 1):
            (first, _) = asked(root, task, shots_n=5, shots_as=form, shots_seed=seed)
            assert first.prompt.count(own) == 1
            assert first.prompt.count("答案：" if task is EXAM else "译：") == 6


def test_a_seed_chooses_the_examples_for_all_questions_of_a_subject(root: Path) -> None:
    chosen = {seed: asked(root, EXAM, shots_seed=seed)[1].prompt for seed in (None, *range(6))}
    assert chosen[None].index("问0") < chosen[None].index("问1") < chosen[None].index("问9")
    assert len(set(chosen.values())) > 4
    assert chosen[3] == asked(root, EXAM, shots_seed=3)[1].prompt
    one, other = (asked(root, PAIRS, shots_seed=5)[i].prompt for i in (0, 1))
    assert one.rpartition("译：")[0] == other.rpartition("译：")[0] or "甲1" in other.rpartition("译：")[0]


@pytest.mark.parametrize("form", ["text", "turns"])
def test_examples_are_taken_away_one_by_one_from_the_last(root: Path, form: str) -> None:
    prompt: Any = asked(root, EXAM, shots_n=3, shots_as=form, system="系统")[1].prompt
    seen = []
    while prompt is not None:
        assert isinstance(prompt, Prompt)
        assert prompt.startswith("系统\n\n关于law：\n\n")
        seen.append([f"问{i}" in prompt for i in range(3)])
        prompt = prompt.fewer() if prompt.fewer else None
    assert seen == [[True] * 3, [True, True, False], [True, False, False], [False] * 3]


def test_examples_without_a_place_are_refused(root: Path) -> None:
    with pytest.raises(UserError, match=r"task t: `prompt` has no \{shots\}"):
        asked(root, PAIRS, prompt="译：{zh}\n")
    with pytest.raises(UserError, match=r"no field `shots`"):
        asked(root, PAIRS, shots=None)
    with pytest.raises(UserError, match="a text is read alone"):
        asked(root, PAIRS, layout="text", by=None)


def test_an_endpoint_gets_the_messages_or_the_text(root: Path) -> None:
    (_, request) = asked(root, PAIRS, shots_as="turns", shots_n=1, system="s")
    with serve(lambda _: "b") as (url, seen):
        for chat_api in (True, False):
            config = EvalEndpointConfig(url=url, model="m", chat=chat_api)
            assert list(generate(config, [request])) == [(0, "b")]
    assert seen[0]["messages"] == messages(request.prompt)
    assert len(seen[0]["messages"]) == 4
    assert seen[1]["prompt"] == "s\n\n译：甲0\na0\n\n译：甲9\n"


def test_an_endpoint_continues_a_prompt_without_the_spaces_at_its_end(root: Path) -> None:
    (_, spaced) = asked(root, PAIRS, prompt="{shots}{zh}\nAnswer: ", shots_n=1)
    plain = spaced._replace(prompt=spaced.prompt.rstrip())
    with serve(lambda _: "b") as (url, seen):
        config = EvalEndpointConfig(url=url, model="m")
        assert list(generate(config, [spaced])) == [(0, "b")]
    assert seen[0]["prompt"] == "甲0\nAnswer: a0\n\n甲9\nAnswer:"
    backend = open_endpoint(config)
    old = backend._replace(depends_on=lambda _: None)  # answers that saw the space are not taken again
    assert answer_key(backend, spaced) != answer_key(old, spaced)
    assert answer_key(backend, plain) == answer_key(old, plain)
    chat = open_endpoint(EvalEndpointConfig(url=url, model="m", chat=True))
    assert chat.depends_on(spaced) is None


def test_a_chat_template_gets_the_messages_or_says_that_it_cannot(root: Path, tmp_path: Path) -> None:
    local = open_model(str(write_model(tmp_path / "model")))
    local.chat = True
    local.tokenizer.chat_template = (
        "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
        "[{{ m.role }}]{{ m.content }}{% endfor %}"
    )
    prompt = asked(root, PAIRS, shots_as="turns", shots_n=1)[1].prompt
    assert local.render(prompt) == "[user]译：甲0\n[assistant]a0[user]译：甲9\n"
    assert local.render("x") == "[user]x"
    with pytest.raises(UserError, match=r"does not accept the messages \['system', 'user'\]: no system"):
        local.render(asked(root, PAIRS, system="s", shots_n=0)[0].prompt)
