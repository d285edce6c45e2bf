# ruff: noqa: E501 (a table reads best with a fault in a line)
"""A hundred ways to damage a base or a delta: each ends with exit code 2 and a message that names the place;
nothing appears under the target's name; an existing target is kept."""

import contextlib
import io
import json
import pickle
import random
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from delta import __main__ as command
from tests.delta.models import contents, random_model, save, tuned


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pair")
    arrays = random_model()
    # Without metadata: what is in it changes nothing about the base.
    save(folder / "base", arrays, 2, metadata=False)
    save(folder / "other", random_model(seed=5), 2)
    save(folder / "target", tuned(arrays, 45), 2)
    assert delta("make", folder, shard_bytes=500_000)[0] == 0
    assert len(list((folder / "delta").glob("delta-*.safetensors"))) >= 2
    return folder


def delta(
    name: str, folder: Path, *more: str, target: str = "target", base: str = "base", shard_bytes: int = 0
) -> tuple[int, str]:
    """Run the command in this process; exit code and output."""
    from delta import delta_format
    from delta import make as module

    arguments = ["delta", name, "--base", folder / base, "--target", folder / target]
    arguments += ["--delta", folder / "delta", *more]
    output = io.StringIO()
    patch = pytest.MonkeyPatch()
    patch.setattr(sys, "argv", [str(argument) for argument in arguments])
    if shard_bytes:
        patch.setattr(
            module.make, "__kwdefaults__", {**(module.make.__kwdefaults__ or {}), "shard_bytes": shard_bytes}
        )
    assert delta_format.SHARD_BYTES == 5_000_000_000
    with (
        contextlib.redirect_stderr(output),
        contextlib.redirect_stdout(output),
        pytest.raises(SystemExit) as end,
    ):
        command.main()
    patch.undo()
    return int(str(end.value.code)), output.getvalue()


def flip(file: Path, seed: int, first: int = 0, end: int | None = None) -> None:
    """Flip one bit between two offsets."""
    data = bytearray(file.read_bytes())
    rng = random.Random(seed)
    data[rng.randrange(first, end or len(data))] ^= 1 << rng.randrange(8)
    file.write_bytes(data)


def flips(pattern: str, seed: int, first: int = 0, end: int | None = None, payload: bool = False) -> "Fault":
    """Flip a bit in the first file that matches, with `payload` only after its header."""

    def act(folder: Path) -> None:
        file = min(folder.glob(pattern))
        flip(file, seed, header_end(file) if payload else first, end)

    return act


def cuts(pattern: str, size: int) -> "Fault":
    """Cut the first file that matches to its first bytes."""

    def act(folder: Path) -> None:
        file = min(folder.glob(pattern))
        file.write_bytes(file.read_bytes()[:size])

    return act


def header_end(file: Path) -> int:
    return 8 + int.from_bytes(file.read_bytes()[:8], "little")


def edit_plan(folder: Path, change: Callable[[dict], None], seal: bool = True) -> None:  # type: ignore[type-arg]
    """Change delta.json as someone who knows the format would, including its own hash."""
    from delta import delta_format

    path = folder / "delta/delta.json"
    plan = json.loads(path.read_text())
    change(plan)
    path.write_text(json.dumps(plan))
    if seal:
        with contextlib.suppress(ValueError):
            delta_format.write(folder / "delta", delta_format.Delta.model_validate(plan))


def first_shard(folder: Path) -> Path:
    return min((folder / "delta").glob("delta-*.safetensors"))


def swap(folder: Path, pattern: str) -> None:
    one, two = sorted(folder.glob(pattern))[:2]
    one.rename(folder / "x")
    two.rename(one)
    (folder / "x").rename(two)


def rename_shard(name: str) -> Callable[[Path], None]:
    def change(plan: dict) -> None:  # type: ignore[type-arg]
        plan["shards"] = {name: next(iter(plan["shards"].values()))}

    return lambda folder: edit_plan(folder, change)


def rename_payload(name: str) -> Callable[[Path], None]:
    def change(plan: dict) -> None:  # type: ignore[type-arg]
        for entry in plan["tensors"].values():
            if entry["payload"]:
                entry["payload"] = name

    return lambda folder: edit_plan(folder, change)


def rename_file(name: str) -> Callable[[Path], None]:
    def change(plan: dict) -> None:  # type: ignore[type-arg]
        plan["files"] = {name: next(iter(plan["files"].values()))}

    return lambda folder: edit_plan(folder, change)


def bomb(folder: Path) -> None:
    """A payload with a gigabyte of zeros in place of a chunk; all hashes are adjusted."""
    import hashlib

    from delta import safetensors_io

    file = first_shard(folder)
    tensor = safetensors_io.read_header(file)[1][0]
    compressor = zstandard.ZstdCompressor().compressobj(size=1 << 30)
    frame = b"".join(compressor.compress(bytes(1 << 24)) for _ in range(64)) + compressor.flush()
    payload = len(frame).to_bytes(4, "little") + bytes(4) + frame
    data = bytearray(file.read_bytes())
    assert (
        len(payload) > tensor.size
    )  # a bomb this large is rejected by its size alone: cut it and adjust the hashes
    payload = payload[: tensor.size]
    payload = min(len(frame), tensor.size - 8).to_bytes(4, "little") + payload[4:]
    data[tensor.start : tensor.start + tensor.size] = payload
    file.write_bytes(data)

    def change(plan: dict) -> None:  # type: ignore[type-arg]
        plan["tensors"][tensor.name]["payload_sha256"] = hashlib.sha256(payload).hexdigest()

    edit_plan(folder, change)


class Code:
    """Runs code when it is unpickled."""

    def __reduce__(self) -> tuple[object, ...]:
        return (Path("/tmp/delta-test-pickle-ran").touch, ())


def symlinked(folder: Path, name: str, to: str) -> None:
    (folder / name).unlink()
    (folder / name).symlink_to(to)


Fault = Callable[[Path], object]
SHARD = "delta/delta-*.safetensors"
FAULTS: dict[str, tuple[Fault, str]] = {
    **{f"plan bit {n}": (flips("delta/delta.json", n), "delta.json") for n in range(20)},
    **{f"payload length bit {n}": (flips(SHARD, n, 0, 8), "delta-00001") for n in range(5)},
    **{f"payload header bit {n}": (flips(SHARD, n, 8, 200), "delta-00001") for n in range(10)},
    **{f"payload bit {n}": (flips(SHARD, n, payload=True), "tensor ") for n in range(15)},
    **{f"base header bit {n}": (flips("base/*.safetensors", n, 0, 100), "base") for n in range(10)},
    **{f"base bit {n}": (flips("base/*.safetensors", n, payload=True), "tensor ") for n in range(10)},
    **{f"stored bit {n}": (flips("delta/files/config.json", n), "config.json") for n in range(4)},
    **{f"payload cut to {n}": (cuts(SHARD, n), "delta-0") for n in (0, 7, 100, 1500)},
    **{f"plan cut to {n}": (cuts("delta/delta.json", n), "delta.json") for n in (0, 1, 500)},
    **{f"name {n}": (rename_shard(n), repr(n)) for n in ("../x.safetensors", "/x.safetensors", "a/b.safetensors", "x.bin", ".x.safetensors")},
    **{f"payload name {n}": (rename_payload(n), repr(n)) for n in ("../x.safetensors", "/etc/passwd")},
    **{f"stored name {n}": (rename_file(n), repr(n)) for n in ("files/../../x", "../x", "/etc/passwd", "files/")},
    "base cut": (cuts("base/*.safetensors", 99), "base/model"),
    "swapped payload files": (lambda f: swap(f / "delta", "delta-*"), "delta-0000"),
    "swapped base files": (lambda f: (f / "base/model.safetensors.index.json").write_text("{}"), "index.json"),
    "wrong base": (lambda f: shutil.copytree(f / "other", f / "base", dirs_exist_ok=True), "another base"),
    "no plan": (lambda f: (f / "delta/delta.json").unlink(), "delta.json"),
    "no payload": (lambda f: first_shard(f).unlink(), "delta-00001"),
    "no stored file": (lambda f: (f / "delta/files/config.json").unlink(), "config.json"),
    "no base file": (lambda f: min(f.glob("base/*.safetensors")).unlink(), "model-00001"),
    "no base": (lambda f: shutil.rmtree(f / "base"), "no such folder"),
    "link to another file": (lambda f: symlinked(f, "delta/files/config.json", "/etc/hostname"), "config.json"),
    "link to a device": (lambda f: symlinked(f, "delta/files/config.json", "/dev/zero"), "config.json"),
    "link to nothing": (lambda f: symlinked(f, f"delta/{first_shard(f).name}", "gone"), "delta-00001"),
    "huge header": (lambda f: first_shard(f).write_bytes(b"\xff" * 7 + b"\x7f" + b"{" * 999), "header"),
    "deep header": (lambda f: first_shard(f).write_bytes((90_000).to_bytes(8, "little") + b"[" * 90_000), "header"),
    "deep plan": (lambda f: (f / "delta/delta.json").write_bytes(b"[" * 90_000), "delta.json"),
    "decompression bomb": (bomb, "tensor "),
    "pickle in place of a payload": (lambda f: first_shard(f).write_bytes(pickle.dumps(Code())), "delta-00001"),
    "pickle in place of a base": (lambda f: [p.write_bytes(pickle.dumps(Code())) for p in f.glob("base/*.saf*")], "base/"),
    "another version": (lambda f: edit_plan(f, lambda p: p.update(version=1), seal=False), "version 1"),
    "unknown key": (lambda f: edit_plan(f, lambda p: p.update(more=2), seal=False), "more"),
    "wrong shape": (
        lambda f: edit_plan(f, lambda p: p["tensors"]["model.norm.weight"].update(shape=[8, 2])), "model.norm.weight",
    ),
    "tensor left out": (lambda f: edit_plan(f, lambda p: p["tensors"].pop("model.norm.weight")), "different tensors"),
    "wrong result": (
        lambda f: edit_plan(f, lambda p: p["tensors"]["lm_head.weight"].update(sha256="0" * 64)), "lm_head.weight",
    ),
}  # fmt: skip


def test_there_are_a_hundred() -> None:
    assert len(FAULTS) >= 100


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_found_and_named_and_nothing_is_lost(pair: Path, tmp_path: Path, fault: str) -> None:
    for name in ("base", "delta", "target", "other"):
        shutil.copytree(pair / name, tmp_path / name)
    act, named = FAULTS[fault]
    act(tmp_path)
    before = contents(tmp_path / "target")
    code, output = delta("apply", tmp_path, "--force")
    assert code == 2, output
    assert output.startswith("error: ")
    assert named in output
    assert contents(tmp_path / "target") == before
    assert not (tmp_path / ".target.unfinished").exists()
    code, output = delta("apply", tmp_path, target="new")
    assert code == 2
    assert not (tmp_path / "new").exists()
    assert not Path("/tmp/delta-test-pickle-ran").exists()
