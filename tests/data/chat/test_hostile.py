"""Bad instruction data: a counted drop that names the line, or one clear message; nothing passes unseen."""

import json
import resource
from pathlib import Path
from typing import Any

import pytest

from core.errors import UserError
from data.chat.config import ChatDataConfig
from data.chat.prepare import prepare
from tests.conftest import run
from tests.data.chat.chats import (
    chat_tokenizer,
    conversation,
    load,
    pairs,
    prepared,
    write_lines,
    write_tokenizer,
)

__all__ = ["chat_tokenizer"]

BAD: list[tuple[str, Any]] = [
    ("empty-answer", {"instruction": "Q", "output": ""}),
    ("empty-question", {"instruction": " ", "output": "A"}),
    ("unknown-role", {"messages": [{"role": "user", "content": "Q"}, {"role": "narrator", "content": "A"},
                                   {"role": "assistant", "content": "A"}]}),
    ("user-not-first", {"messages": conversation(2)[1:]}),
    ("no-answer", {"messages": conversation(1)[:1]}),
    ("no-messages", {"messages": []}),
    ("no-messages", {"instruction": "Q", "instances": []}),
    ("no-layout", {"text": "x"}),
    ("bad-json", [1]),
    ("bad-encoding", {"instruction": "Q", "output": "\ud800"}),
    ("not-text", {"messages": [{"role": "user", "content": [1]}, {"role": "assistant", "content": "A"}]}),
    ("no-layout", {"messages": 3}),
]  # fmt: skip


def test_every_bad_record_is_counted_and_named_with_its_line(chat_tokenizer: Path, tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    lines = [json.dumps(record).encode() for _, record in BAD]
    lines += [b'{"instruction": "\xff", "output": "A"}', b"{", *(json.dumps(r).encode() for r in pairs(5))]
    file.write_bytes(b"\n".join(lines) + b"\n")
    made = prepared(tmp_path / "out", chat_tokenizer, [{"path": str(file)}], validation_share=0.0)
    reasons = [*(reason for reason, _ in BAD), "bad-encoding", "bad-json"]
    named = [json.loads(line) for line in (made.folder / "dropped.jsonl").read_text("utf-8").splitlines()]
    assert [(n["source"], n["reason"]) for n in named] == [
        (f"{file}#{line}", reason) for line, reason in enumerate(reasons, start=1)
    ]
    assert all(n["detail"] for n in named)
    counts = made.counts
    assert counts["dropped"] == {reason: reasons.count(reason) for reason in reasons}
    assert counts["train"]["chats"] == 5
    assert counts["sources"][str(file)]["records"] == len(lines)


def test_a_line_of_200_mb_is_passed_over_and_counted(chat_tokenizer: Path, tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    with file.open("wb") as opened:
        opened.write(b'{"instruction": "Q", "output": "')
        for _ in range(200):
            opened.write(b"x" * (1 << 20))
        opened.write(b'"}\n' + json.dumps(pairs(1)[0]).encode() + b"\n")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    made = prepared(tmp_path / "out", chat_tokenizer, [{"path": str(file)}], validation_share=0.0)
    assert made.counts["dropped"] == {"too-long": 1}
    assert made.counts["train"]["chats"] == 1
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 400 << 10


def test_a_template_that_refuses_a_chat_drops_it_with_its_words(tmp_path: Path) -> None:
    template = (
        "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
        "{{ raise_exception('roles must alternate') }}{% endif %}<|im_start|>{{ m.content }}<|im_end|>"
        "{% endfor %}{% if add_generation_prompt %}<|im_start|>{% endif %}"
    )
    tokenizer = write_tokenizer(tmp_path / "tokenizer", template=template)
    said = conversation(2)
    file = write_lines(tmp_path / "a.jsonl", [{"messages": said}, {"messages": [said[0], *said]}])
    made = prepared(tmp_path / "out", tokenizer, [{"path": str(file)}], template=None, validation_share=0.0)
    assert made.counts["dropped"] == {"template": 1}
    assert "roles must alternate" in (made.folder / "dropped.jsonl").read_text()


def test_names_of_special_tokens_in_a_text_do_not_shift_what_is_trained(
    chat_tokenizer: Path, tmp_path: Path
) -> None:
    row = {"instruction": "end </s><|im_end|>", "input": "", "output": "a<|im_end|>\n<|im_start|>user\nb"}
    file = write_lines(tmp_path / "a.jsonl", [row])
    made = prepared(tmp_path / "out", chat_tokenizer, [{"path": str(file)}], validation_share=0.0)
    tokenizer = load(made.tokenizer)
    blocks = made.blocks("train", 256, packing="none", padding_id=0)
    labels = blocks[0]["labels"]
    assert tokenizer.decode(labels[labels >= 0]) == row["output"] + "<|im_end|>"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"sources": []}, "at least 1"),
        ({"sources": [{"path": "a", "layout": "vicuna"}]}, "unknown layout 'vicuna'"),
        ({"sources": [{"path": "a"}, {"path": "a"}]}, "two sources are named 'a'"),
        ({"sources": [{"dataset": "who/what"}]}, "needs a `revision`"),
        ({"sources": [{"path": "a"}], "replay_share": 0.2}, "`replay: true`"),
        ({"sources": [{"path": "a", "replay": True}], "replay_share": 0.2}, "with and without"),
    ],
)
def test_a_configuration_that_cannot_be_meant_is_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ChatDataConfig.model_validate({"output_dir": "o", **settings})


def test_too_many_bad_records_end_the_work_and_say_where_they_are_named(
    chat_tokenizer: Path, tmp_path: Path
) -> None:
    file = write_lines(tmp_path / "a.jsonl", [*pairs(150), *({"instruction": "Q", "output": ""},) * 150])
    with pytest.raises(UserError, match=r"150 of 300 records .*dropped\.jsonl"):
        prepared(tmp_path / "out", chat_tokenizer, [{"path": str(file)}], error_budget=0.1)
    assert not (tmp_path / "out").exists()
    assert list((tmp_path / ".out.unfinished").glob("shard-*.json"))  # what is done is kept
    made = prepared(tmp_path / "out", chat_tokenizer, [{"path": str(file)}], error_budget=0.6)
    fresh = prepared(tmp_path / "fresh", chat_tokenizer, [{"path": str(file)}], error_budget=0.6)
    for name in ("train.bin", "train.trained.bin", "dropped.jsonl"):
        assert (made.folder / name).read_bytes() == (fresh.folder / name).read_bytes()
    with pytest.raises(UserError, match="no chat is left"):
        prepared(tmp_path / "none", chat_tokenizer, [{"path": str(file)}], max_tokens=8)
    missing = {"output_dir": "o", "sources": [{"path": str(tmp_path / "nowhere")}], "template": "chatml"}
    with pytest.raises(UserError, match="nowhere"):
        prepare(ChatDataConfig.model_validate(missing), chat_tokenizer)


def test_the_commands_prepare_and_preview(chat_tokenizer: Path, tmp_path: Path) -> None:
    file = write_lines(tmp_path / "a.jsonl", [*pairs(40), {"text": "x"}])
    config = tmp_path / "chats.yaml"
    config.write_text(f"sources: [{{path: {file}}}]\noutput_dir: {tmp_path / 'out'}\ntemplate: llama3\n")
    done = run("data", "chats", "--config", config, "--tokenizer", chat_tokenizer, "engine.workers=1")
    assert done.returncode == 0, done.stderr
    assert "no-layout 1" in done.stdout
    assert "alpaca" in done.stdout
    shown = run("data", "preview", tmp_path / "out", "--chats", "1")
    assert shown.returncode == 0, shown.stderr
    assert "<|end_header_id|>\n\n⟦q answer" in shown.stdout
    again = run("data", "chats", "--config", config, "--tokenizer", chat_tokenizer, "template=vicuna")
    assert again.returncode == 2
    assert "template=vicuna: unknown template" in again.stderr
