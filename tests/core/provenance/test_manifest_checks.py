"""A manifest shows when a folder was built from something else, and when it was changed or damaged."""

import json
from pathlib import Path
from typing import Any

import pytest

from core.errors import UserError
from core.provenance import manifest
from tests.core.provenance.folders import CONFIG, INPUTS, make


def test_a_folder_that_is_absent_is_not_up_to_date(tmp_path: Path) -> None:
    assert not manifest.up_to_date(tmp_path / "out", config=CONFIG, inputs=INPUTS, advice="")


def test_the_same_configuration_and_inputs_are_up_to_date(tmp_path: Path) -> None:
    make(tmp_path / "out")
    assert manifest.up_to_date(tmp_path / "out", config=CONFIG, inputs=INPUTS, advice="")
    assert manifest.up_to_date(tmp_path / "out", config=CONFIG, inputs=None, advice="")


MANY = {f"key{i:02}": i for i in range(15)}


@pytest.mark.parametrize(
    ("config", "inputs", "expected"),
    [
        (CONFIG | {"rate": 0.25}, INPUTS, ["rate: 0.5 before, 0.25 now"]),
        (CONFIG | {"inner": {"seed": 2}}, INPUTS, ["inner.seed: 1 before, 2 now"]),
        (CONFIG | {"inner": None}, INPUTS, ['inner: {"seed": 1} before, null now']),
        (CONFIG | {"parts": ["title"]}, None, ['parts: ["title", "claims"] before, ["title"] now']),
        (CONFIG | {"more": "x" * 100}, INPUTS, ["more: null before", "xxx…"]),
        ({"rate": 0.5, "parts": ["title", "claims"]}, INPUTS, ["inner", "before, null now"]),
        (
            CONFIG,
            {**INPUTS, "raw/a.xml": "sha256:cc"},
            ["input raw/a.xml: changed"],
        ),
        (CONFIG, {"raw/a.xml": "sha256:aa"}, ["input raw/b.xml: removed"]),
        (CONFIG, {**INPUTS, "raw/c.xml": "sha256:cc"}, ["input raw/c.xml: new"]),
        (CONFIG | MANY, INPUTS, ["key09", "… and 5 more"]),
    ],
)
def test_a_folder_made_from_something_else_is_refused_with_the_difference(
    tmp_path: Path, config: dict[str, Any], inputs: dict[str, str] | None, expected: list[str]
) -> None:
    make(tmp_path / "out")
    with pytest.raises(UserError) as caught:
        manifest.up_to_date(tmp_path / "out", config=config, inputs=inputs, advice="Choose another folder.")
    for part in ["out was built from other settings or inputs:", *expected, "Choose another folder."]:
        assert part in str(caught.value)


def test_a_sound_folder_passes_the_check(tmp_path: Path) -> None:
    make(tmp_path / "out")
    manifest.verify(tmp_path / "out")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    make(tmp_path / "out")
    (tmp_path / "out" / "part" / "a.txt").unlink()
    with pytest.raises(UserError, match=r"out is incomplete: missing part/a\.txt"):
        manifest.verify(tmp_path / "out")


@pytest.mark.parametrize("content", ["", "firsT", "first "])
def test_an_altered_file_is_named(tmp_path: Path, content: str) -> None:
    make(tmp_path / "out")
    (tmp_path / "out" / "part" / "a.txt").write_text(content)
    with pytest.raises(UserError, match=r"out is damaged: .*a\.txt has changed since it was written"):
        manifest.verify(tmp_path / "out")


def test_a_manifest_inside_a_folder_is_a_file_like_the_others(tmp_path: Path) -> None:
    with manifest.build(tmp_path / "out", step="x", config={}, inputs={}) as folder:
        make(folder.path / "inner")
    (tmp_path / "out" / "inner" / "manifest.json").write_text("{}")
    with pytest.raises(UserError, match=r"manifest\.json has changed"):
        manifest.verify(tmp_path / "out")


WHOLE = {"format": 1, "config": {}, "inputs": {}, "outputs": {}, "counts": {}}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "manifest.json is damaged"),
        (json.dumps(WHOLE).encode()[:-5], "manifest.json is damaged"),
        (b'{"format": "\xff"}', "manifest.json is damaged"),
        (b"\x00" * 50, "manifest.json is damaged"),
        (b"[]", "unknown manifest format"),
        (b"{}", "unknown manifest format"),
        (json.dumps(WHOLE | {"format": 2}).encode(), "this version of the code reads format 1"),
        (b'{"format": 1, "config": {}, "inputs": {}}', "damaged (no counts, outputs)"),
        (json.dumps({**WHOLE, "outputs": ["a"]}).encode(), "damaged (no outputs)"),
    ],
)
def test_a_damaged_manifest_is_refused(tmp_path: Path, content: bytes, expected: str) -> None:
    make(tmp_path / "out")
    (tmp_path / "out" / "manifest.json").write_bytes(content)
    for use in (manifest.read, manifest.verify, manifest.outputs_of):
        with pytest.raises(UserError) as caught:
            use(tmp_path / "out")
        assert expected in str(caught.value)
        assert str(tmp_path / "out") in str(caught.value)


def test_a_folder_without_a_manifest_is_not_complete(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(UserError, match=r"out is not a complete folder: it has no manifest\.json"):
        manifest.up_to_date(tmp_path / "out", config={}, inputs={}, advice="")
