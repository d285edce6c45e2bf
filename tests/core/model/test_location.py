"""A model that is not where the user says: the reason at once, not the hub's rules for names."""

import socket
from pathlib import Path

import pytest

from core.errors import UserError
from core.model.location import check_location


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("Name or service not known")

    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/nope", "/nope: no such folder"),
        ("runs/tiny/model", "runs/tiny/model: no such folder"),
        ("./nope", "./nope: no such folder"),
        ("", "no model folder given"),
        ("file", "file: not a folder. Give the folder that the file is in."),
        (
            "org/name",
            "org/name: no such folder, and not in the Hugging Face cache; the hub cannot be reached",
        ),
        ("gpt2", "gpt2: no such folder, and not in the Hugging Face cache"),
    ],
)
def test_the_reason_is_given(path: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError) as raised:
        check_location(path)
    assert str(raised.value).startswith(message)


def test_a_folder_and_a_cached_id_are_right(tmp_path: Path) -> None:
    check_location(str(tmp_path))
    snapshot = tmp_path / "cache/models--org--name/snapshots/abc"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    refs = snapshot.parent.parent / "refs"
    refs.mkdir()
    (refs / "main").write_text("abc")
    check_location("org/name")
