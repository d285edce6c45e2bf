"""From a result back to the raw files: the tree, and what has changed since."""

from pathlib import Path

import pytest

from core.provenance import manifest
from tests.conftest import run


@pytest.fixture
def result(tmp_path: Path) -> Path:
    """raw/a.xml, raw/b.xml, a data set ─▶ corpus ─▶ tokenizer; corpus, tokenizer ─▶ run/model."""
    (tmp_path / "raw").mkdir()
    for name in "ab":
        (tmp_path / f"raw/{name}.xml").write_text(f"<patent>{name}</patent>")
    raw = manifest.hash_files(sorted((tmp_path / "raw").iterdir()))
    make(tmp_path / "corpus", "pack", raw | {"somebody/patents@abc": "revision:abc"})
    corpus = manifest.outputs_of(tmp_path / "corpus")
    make(tmp_path / "tokenizer", "tokenizer", corpus)
    make(tmp_path / "run/model", "train", corpus | manifest.outputs_of(tmp_path / "tokenizer"))
    return tmp_path / "run"


def make(folder: Path, step: str, inputs: dict[str, str], *, force: bool = False, text: str = "") -> None:
    folder.parent.mkdir(exist_ok=True)
    with manifest.build(folder, step=step, config={}, inputs=inputs, force=force) as built:
        (built.path / f"{step}.out").write_text(text or f"made by {step}")
        built.counts["documents"] = 1234


def test_the_tree_goes_back_to_the_raw_files_and_expands_each_folder_once(result: Path) -> None:
    done = run("tools.lineage", result, "--verify")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == f"{result / 'model'}  [train] documents 1,234"
    assert sum("[pack] " in line for line in lines) == 1
    assert sum("[pack, see above]" in line for line in lines) == 1
    assert sum(f"{result.parent / 'raw'}" in line for line in lines) == 2
    assert sum("somebody/patents@abc  revision:abc" in line for line in lines) == 1
    assert lines[-1] == "all 5 files are unchanged."


@pytest.mark.parametrize(
    ("file", "change", "problem", "affected"),
    [
        ("raw/a.xml", b"<patent>A</patent>", "modified since", ["run/model", "corpus", "tokenizer"]),
        ("raw/a.xml", None, "missing", ["run/model", "corpus", "tokenizer"]),
        ("tokenizer/tokenizer.out", b"!", "modified since it was written", ["run/model", "tokenizer"]),
        ("run/model/train.out", b"", "modified since it was written", ["run/model"]),
    ],
)
def test_a_changed_byte_anywhere_is_found_with_everything_that_depends_on_it(
    result: Path, file: str, change: bytes | None, problem: str, affected: list[str]
) -> None:
    place = result.parent / file
    place.unlink() if change is None else place.write_bytes(change)
    done = run("tools.lineage", result / "model", "--verify")
    assert done.returncode == 1
    lines = done.stdout[done.stdout.index(f"{place}: ") :].splitlines()
    assert lines[0].startswith(f"{place}: {problem}")
    assert lines[0].endswith(". Affected:")
    assert {line.strip() for line in lines[1:]} == {str(result.parent / folder) for folder in affected}


def test_a_folder_rebuilt_since_is_found(result: Path) -> None:
    raw = manifest.hash_files(sorted((result.parent / "raw").iterdir()))
    make(result.parent / "corpus", "pack", raw, force=True, text="another")
    done = run("tools.lineage", result, "--verify")
    assert done.returncode == 1
    assert f"pack.out: rebuilt since {result / 'model'} was built from it" in done.stdout


def test_a_folder_without_a_manifest_is_an_error(tmp_path: Path) -> None:
    done = run("tools.lineage", tmp_path)
    assert done.returncode == 2
    assert "no manifest.json found" in done.stderr
