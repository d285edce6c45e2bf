"""Awkward names, files and types: what is printed takes over no terminal and no shell, every file of a model
is carried or named, an unsupported type is called that, and no input ends in a traceback."""

import contextlib
import io
import json
import pickle
import shlex
import shutil
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from core.errors import UserError
from delta import codec
from delta.delta_format import Delta, read
from delta.delta_format import write as write_plan
from delta.meta_llama.torch_pickle import read_pickled
from tests.delta.models import contents, delta, random_model, save, tuned
from tests.delta.test_incomplete import tensors, write

SMALL = {name: value for name, value in random_model().items() if "up_proj" not in name}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    save(tmp_path / "base", SMALL)
    save(tmp_path / "target", tuned(SMALL))
    return tmp_path


def make(place: Path, *more: str) -> tuple[int, str]:
    return delta(
        "make", "--base", place / "base", "--target", place / "target", "--delta", place / "delta", *more
    )


def rename_in_plan(place: Path, **names: str) -> None:
    """Edit delta.json as someone would who knows its hash."""
    plan = json.loads((place / "delta/delta.json").read_text()) | names
    write_plan(place / "delta", Delta.model_validate(plan))


HOSTILE = "a\x1b[2J\x9b31m\u202e b; rm -rf ~ $(id) '\n\"error: x"


@pytest.mark.parametrize("key", ["base", "target"])
def test_names_in_a_delta_take_over_no_terminal_and_no_shell(place: Path, key: str) -> None:
    assert make(place)[0] == 0
    rename_in_plan(place, **{key: HOSTILE})
    code, said = delta("info", place / "delta")
    assert code == 0
    assert not set(said) & {"\x1b", "\x9b", "\u202e"}
    command = next(line for line in said.splitlines() if "delta apply" in line)
    words = shlex.split(command)
    assert len(words) == 10
    assert words[words.index(f"--{key}") + 1] == repr(HOSTILE)[1:-1].replace("\\'", "'").replace('\\"', '"')
    save(place / "other", random_model(seed=4))
    code, said = delta("verify", "--base", place / "other", "--delta", place / "delta")
    assert code == 2
    assert len(said.splitlines()) == 1
    assert not set(said) & {"\x1b", "\x9b", "\u202e"}


def test_folders_with_such_names_make_a_delta(place: Path) -> None:
    odd = place / "a\x1b[2J;\udcff"
    (place / "target").rename(odd)
    folders = ["--base", place / "base", "--target", odd, "--delta", place / "delta"]
    assert "\x1b" not in delta("make", *folders, "--dry-run")[1]
    code, said = delta("make", *folders)
    assert code == 0, said
    assert (
        "\x1b"
        not in said + (place / "delta/README.md").read_text() + (place / "delta/delta.json").read_text()
    )
    assert read(place / "delta").target == r"a\x1b[2J;\udcff"
    assert delta("verify", "--target", odd, "--delta", place / "delta")[0] == 0


@pytest.mark.parametrize("name", ["a\x1b[2J", "a\nb", "\ud800", "a\u202eb"])
def test_a_tensor_with_such_a_name_is_refused(place: Path, name: str) -> None:
    header = json.dumps({name: {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}}).encode()
    data = len(header).to_bytes(8, "little") + header + b"x"
    (place / "target/model.safetensors").write_bytes(data)
    code, said = make(place)
    assert code == 2
    assert f"tensor {name!a}: control characters" in said
    with pytest.raises(UserError, match="control characters"):
        read_pickled(pickled(place / "x.bin", {name: torch.zeros(2)}))


CARRIED = [
    "LICENSE", "LICENSE.txt", "LICENCE.md", "Llama-3-NOTICE", "NOTICE.txt", "USE_POLICY.md", "COPYING",
    "CITATION.cff", "tokenizer.model", "tokenizer.model.v3", "source.spm", "bpe.codes", "merges.txt",
    "additional_chat_templates/tool_use.jinja", "additional_chat_templates/rag.jinja",
]  # fmt: skip
LEFT_OUT = [
    "training_args.bin",
    "runs/events",
    "train.csv",
    "licensed.parquet",
    "additional_chat_templates/x.sh",
]


def test_every_file_is_carried_or_named(place: Path) -> None:
    for name in [*CARRIED, *LEFT_OUT, ".hidden"]:
        (place / "target" / name).parent.mkdir(exist_ok=True)
        (place / "target" / name).write_text(f"content of {name}")
    code, said = make(place)
    assert code == 0, said
    assert "target: not stored in the delta: licensed.parquet, runs/, train.csv, training_args.bin" in said
    folders = ["--base", place / "base", "--delta", place / "delta"]
    assert delta("apply", *folders, "--target", place / "again")[0] == 0
    for name in CARRIED:
        assert (place / "again" / name).read_text() == f"content of {name}"
    for name in LEFT_OUT:
        assert not (place / "again" / name).exists()
    assert delta("verify", "--target", place / "again", "--delta", place / "delta")[0] == 0
    (place / "again" / CARRIED[-1]).write_text("changed")
    assert delta("verify", "--target", place / "again", "--delta", place / "delta")[0] == 2


@pytest.mark.parametrize(
    "name",
    [
        "files/x/config.json", "files/additional_chat_templates/a/b.jinja", "additional_chat_templates/.x",
        "files/additional_chat_templates/../../x",
    ],
)  # fmt: skip
def test_no_other_subfolder_is_written(place: Path, name: str) -> None:
    assert make(place)[0] == 0
    plan = json.loads((place / "delta/delta.json").read_text())
    plan["files"] = {name: plan["files"]["files/config.json"]}
    write_plan(place / "delta", Delta.model_validate(plan))
    with pytest.raises(UserError, match="not a valid name for a file"):
        read(place / "delta")


def test_additional_templates_are_carried_by_a_rule_too(tmp_path: Path) -> None:
    for seed, name in enumerate(("base", "delta")):
        write(tmp_path / name, tensors(seed), "bin")
    (tmp_path / "delta/additional_chat_templates").mkdir()
    (tmp_path / "delta/additional_chat_templates/rag.jinja").write_text("rag")
    folders = ["--base", tmp_path / "base", "--delta", tmp_path / "delta", "--target", tmp_path / "target"]
    assert delta("apply", "--rule", "fastchat", *folders)[0] == 0
    assert contents(tmp_path / "target/additional_chat_templates") == {"rag.jinja": b"rag"}


@pytest.mark.parametrize("dtype", ["F4", "F6_E2M3", "F8_E8M0", "F8_E4M3FNUZ", "C64"])
@pytest.mark.parametrize("role", ["base", "target"])
def test_an_unsupported_type_is_called_that(place: Path, dtype: str, role: str) -> None:
    header = json.dumps({"x": {"dtype": dtype, "shape": [2], "data_offsets": [0, 2]}}).encode()
    data = len(header).to_bytes(8, "little") + header + b"xx"
    (place / role / "model.safetensors").write_bytes(data)
    code, said = make(place)
    assert code == 2
    assert f"tensor x has the type {dtype}, which is not supported" in said


PAIR = "--base base --target target"
REFUSED = {
    "both": (f"make {PAIR} --adapter a --delta d", "either --target or --adapter"),
    "neither": ("make --base base --delta d", "either --target or --adapter"),
    "a rule with an adapter": ("make --rule fastchat --base base --adapter a --delta d", "Merge the adapter"),
    "that, as a trial": ("make --rule alpaca --base base --adapter a --delta d --dry-run", "Merge the"),
    "resuming a rule": ("apply --rule fastchat --base base --delta target --target t --resume", "Omit"),
    "that, as a trial too": (f"make --rule alpaca {PAIR} --delta d --resume --dry-run", "Omit"),
    "below a file": (f"make {PAIR} --delta base/config.json/d", "Choose another"),
    "deep below a file": (f"make {PAIR} --delta file/x/y/d", "is not a folder"),
    "a long name": (f"make {PAIR} --delta {'d' * 300}", "File name too long"),
    "a name too long with ours": (f"make {PAIR} --delta {'d' * 250}", "File name too long"),
    "a long name of a base": (f"make --base {'b' * 300} --target target --delta d", "File name too long"),
    "a file as a base": ("make --base file --target target --delta d", "file: no such folder"),
    "a file as a delta": ("apply --base base --delta file --target t", "file is not a delta"),
    "a file as a target": (f"make {PAIR} --delta file", "already exists and is a file"),
    "a loop": (f"make {PAIR} --delta loop/d", "loop"),
    "info of nothing": ("info gone", "gone is not a delta"),
    "here": (f"make {PAIR} --delta . --force", "by its name"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_a_mistake_ends_in_one_message(place: Path, monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    monkeypatch.chdir(place)
    (place / "file").write_text("x")
    (place / "loop").symlink_to("loop")
    command, named = REFUSED[case]
    before = {path: path.stat().st_mtime_ns for path in place.rglob("*") if path.is_file()}
    code, said = delta(*command.split())
    assert code == 2
    assert said.startswith("error: ")
    assert named in said
    assert {path: path.stat().st_mtime_ns for path in place.rglob("*") if path.is_file()} == before


TRIALS = {
    "no delta": ("apply --base base --delta base --target t", "base is not a delta"),
    "another base": ("apply --base other --delta delta --target t", "another base"),
    "a changed file": ("apply --base base --delta changed --target t", "config.json has changed"),
    "there already": ("apply --base base --delta delta --target target", "already exists"),
    "a delta there already": ("make --base base --target target --delta delta", "already exists"),
    "a base without weights": ("make --base delta/files --target target --delta d", "no weights found"),
    "no adapter": ("make --base base --adapter target --delta d", "adapter_config.json is missing"),
    "a rule on another base": (
        "apply --rule fastchat --base other --delta target --target t",
        "but (50, 16) in the base",
    ),
}


@pytest.mark.parametrize("case", TRIALS)
def test_a_trial_refuses_what_the_real_run_would(
    place: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    assert make(place)[0] == 0
    save(place / "other", {name: value for name, value in random_model("BF16", 50).items() if name in SMALL})
    shutil.copytree(place / "delta", place / "changed")
    (place / "changed/files/config.json").write_text("{}")
    monkeypatch.chdir(place)
    command, named = TRIALS[case]
    for words in ([*command.split(), "--dry-run"], command.split()):
        code, said = delta(*words)
        assert code == 2
        assert named in said


@pytest.mark.parametrize(
    "command",
    ["apply --base base --delta delta --target t", "make --base base --target target --delta d",
     "apply --base base --delta gone --target t", "apply --base gone --delta delta --target t",
     "make --base gone --target target --delta d",
     "apply --rule fastchat --base base --delta target --target t"],
)  # fmt: skip
def test_a_trial_of_what_is_right_or_still_to_come_ends_well(
    place: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    assert make(place)[0] == 0
    monkeypatch.chdir(place)
    code, said = delta(*command.split(), "--dry-run")
    assert code == 0, said
    assert "nothing was started or written" in said
    assert ("missing" in said.splitlines()[-2] or "gone" in said) == ("gone" in command)


def pickled(file: Path, value: Any) -> Path:
    torch.save(value, file)
    return file


def with_pickle(file: Path, data: bytes) -> Path:
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("x/data.pkl", data)
        archive.writestr("x/data/0", b"\0" * 64)
    return file


def hidden(name: str) -> OrderedDict[str, Any]:
    """A dictionary whose state hides one of its methods."""
    found: OrderedDict[str, Any] = OrderedDict(weight=torch.zeros(2))
    found.__dict__[name] = 5
    return found


class Storage:
    """A storage of torch, as it stands in a pickle."""

    def __init__(self, *pid: Any) -> None:
        self.pid = pid


class Rebuilt:
    """A call of torch's function that rebuilds a tensor, with any arguments."""

    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return torch._utils._rebuild_tensor_v2, self.arguments


class Writer(pickle.Pickler):
    def persistent_id(self, obj: Any) -> Any:
        return obj.pid if isinstance(obj, Storage) else None


def rebuilt(*arguments: Any) -> bytes:
    stream = io.BytesIO()
    Writer(stream, 2).dump({"x": Rebuilt(*arguments)})
    return stream.getvalue()


GOOD = Storage("storage", torch.FloatStorage, "0", "cpu", 16)
DAMAGED = {
    "no pickle": b"",
    "a number": pickle.dumps(5),
    "a number as a name": pickle.dumps({5: 5}),
    "a list": pickle.dumps([1]),
    "a negative shape": rebuilt(GOOD, 0, (-3,), (1,), False, None),
    "a shape of words": rebuilt(GOOD, 0, ("a",), (1,), False, None),
    "a shape that is none": rebuilt(GOOD, 0, 5, 5, False, None),
    "a start of words": rebuilt(GOOD, "a", (1,), (1,), False, None),
    "a start before the file": rebuilt(GOOD, -4, (1,), (1,), False, None),
    "too many": rebuilt(GOOD, 0, (10**30,), (1,), False, None),
    "a type of one's own": rebuilt(Storage("storage", "F32 ", "0", "cpu", 1), 0, (1,), (1,), False, None),
    "a list as a type": rebuilt(Storage("storage", [1], "0", "cpu", 1), 0, (1,), (1,), False, None),
    "a number as a place": rebuilt(Storage("s", torch.FloatStorage, 7, "cpu", 1), 0, (1,), (1,), False, None),
    "a short reference": rebuilt(Storage("storage"), 0, (1,), (1,), False, None),
    "no storage": rebuilt(5, 0, (1,), (1,), False, None),
    "too few arguments": rebuilt(GOOD),
    "endless nesting": b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".",
    "a huge text": b"\x80\x04\x8d" + b"\xff" * 8,
    "a state of a function": b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n}X\x01\x00\x00\x00aK\x01sb.",
}  # fmt: skip


@pytest.mark.parametrize("case", DAMAGED)
def test_no_pickle_ends_in_a_traceback(tmp_path: Path, case: str) -> None:
    with pytest.raises(UserError, match=r"x\.bin"):
        read_pickled(with_pickle(tmp_path / "x.bin", DAMAGED[case]))


@pytest.mark.parametrize("name", ["values", "keys", "__class__", "_metadata"])
def test_the_state_of_a_pickle_hides_nothing(tmp_path: Path, name: str) -> None:
    assert [tensor.name for tensor in read_pickled(pickled(tmp_path / "x.bin", hidden(name)))] == ["weight"]


@pytest.mark.parametrize("seed", range(40))
def test_neither_does_a_damaged_archive(tmp_path: Path, seed: int) -> None:
    data = bytearray(
        pickled(tmp_path / "x.bin", {"a": torch.arange(6.0), "b": torch.ones(2, 2).half()}).read_bytes()
    )
    rng = np.random.default_rng(seed)
    for at in rng.integers(0, len(data), 6):
        data[at] = rng.integers(256)
    (tmp_path / "x.bin").write_bytes(data)
    with contextlib.suppress(UserError):
        found = read_pickled(tmp_path / "x.bin")
        assert {tensor.dtype for tensor in found} <= codec.ITEMSIZE.keys()
