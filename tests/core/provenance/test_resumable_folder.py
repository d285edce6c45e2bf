"""What an interrupted run leaves is resumed by the same run and by no other."""

from pathlib import Path

import pytest

from core.errors import DiskError, UserError
from core.provenance.atomic_io import complete_lines, resumable_folder
from tests.core.provenance.folders import names


@pytest.mark.parametrize(
    ("error", "discard_rejected", "kept"),
    [
        (KeyboardInterrupt(), True, True),
        (ValueError("a bug"), True, True),
        (DiskError("full"), True, True),
        (UserError("wrong hash"), True, False),
        (UserError("too many bad records"), False, True),
    ],
)
def test_a_failed_block_leaves_its_folder_unless_a_check_rejects_it(
    tmp_path: Path, error: BaseException, discard_rejected: bool, kept: bool
) -> None:
    with (
        pytest.raises(type(error)),
        resumable_folder(tmp_path / "out", ["inputs"], discard_rejected=discard_rejected) as folder,
    ):
        (folder / "part").write_text("x")
        raise error
    assert not (tmp_path / "out").exists()
    with resumable_folder(tmp_path / "out", ["inputs"]) as folder:
        assert (folder / "part").exists() == kept
    assert names(tmp_path / "out") == (["part"] if kept else [])


@pytest.mark.parametrize(("made_from", "resume"), [(["other inputs"], True), (["inputs"], False)])
def test_another_run_starts_with_an_empty_folder(tmp_path: Path, made_from: list[str], resume: bool) -> None:
    with pytest.raises(KeyboardInterrupt), resumable_folder(tmp_path / "out", ["inputs"]) as folder:
        (folder / "part").write_text("x")
        raise KeyboardInterrupt
    with resumable_folder(tmp_path / "out", made_from, resume=resume) as folder:
        assert not (folder / "part").exists()
    assert names(tmp_path / "out") == []


def test_files_and_links_are_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("folder")
    for name, kind in (("file", "file"), ("link", "symbolic link")):
        with (
            pytest.raises(UserError, match=f"{name} already exists and is a {kind}"),
            resumable_folder(tmp_path / name, None, force=True),
        ):
            pass
    assert (tmp_path / "file").read_text() == "mine"
    assert (tmp_path / "link").is_symlink()


@pytest.mark.parametrize(
    ("content", "lines"), [(None, []), ("", []), ("a\nb\n", ["a", "b"]), ("a\nb", ["a"])]
)
def test_a_truncated_last_line_of_a_journal_is_ignored(
    tmp_path: Path, content: str | None, lines: list[str]
) -> None:
    if content is not None:
        (tmp_path / "journal").write_text(content)
    assert complete_lines(tmp_path / "journal") == lines
