"""A result never takes the place of what it is made from, by whatever path either is given."""

from pathlib import Path

import pytest

from core.errors import UserError
from core.provenance.atomic_io import refuse_overlap


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """An input whose weights are a link into a store, as in the hub's cache, and links to folders."""
    (tmp_path / "hub/store").mkdir(parents=True)
    (tmp_path / "hub/store/blob").write_text("weights")
    (tmp_path / "models/base").mkdir(parents=True)
    (tmp_path / "models/base/model.safetensors").symlink_to("../../hub/store/blob")
    (tmp_path / "models/.next.unfinished").mkdir()
    (tmp_path / "link").symlink_to("models")
    (tmp_path / "loop").symlink_to("loop")
    return tmp_path


REFUSED: dict[str, tuple[str, str]] = {
    "the input": ("models/base", "is "),
    "through a link": ("link/base", "is "),
    "with dots": ("models/other/../base", "is "),
    "inside": ("models/base/delta", "lies in "),
    "deep inside": ("models/base/a/b", "lies in "),
    "inside, through a link": ("link/base/a", "lies in "),
    "the parent": ("models", "contains "),
    "the parent by a link": ("link", "contains "),
    "a parent of the parent": ("models/..", "by its name"),
    "what a link in it leads to": ("hub/store", "hub/store/blob, which "),
    "above what a link in it leads to": ("hub", "hub/store/blob, which "),
    "where an unfinished folder would be": ("models/next", "is "),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_place_that_would_remove_an_input_is_refused(place: Path, case: str) -> None:
    (place / "models/other").mkdir()
    where, problem = REFUSED[case]
    with pytest.raises(UserError, match=problem):
        refuse_overlap(
            place / where, [place / "gone", place / "models/base", place / "models/.next.unfinished"]
        )
    assert (place / "models/base/model.safetensors").read_text() == "weights"


@pytest.mark.parametrize(
    "where", ["new", "models/new", "models/base-2", "hub/other", "loop", "loop/x", "new/deep"]
)
def test_a_place_beside_the_inputs_is_not(place: Path, where: str) -> None:
    refuse_overlap(place / where, [place / "models/base", place / "gone"])


@pytest.mark.parametrize("name", [".", "..", "/", "a/.."])
def test_a_folder_without_a_name_is_refused(name: str) -> None:
    with pytest.raises(UserError, match="by its name"):
        refuse_overlap(Path(name), [])


def test_so_is_one_that_holds_the_working_folder(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (place / "a/b").mkdir(parents=True)
    monkeypatch.chdir(place / "a/b")
    with pytest.raises(UserError, match="the folder that you are in"):
        refuse_overlap(place / "a", [place / "models/base"])
