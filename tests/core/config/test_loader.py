"""Configurations: every mistake is reported with its place and the closest valid key; a dump loads again."""

import argparse
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field

from core.config.loader import Config, add_arguments, dump, from_arguments, load
from core.errors import UserError
from tests.conftest import ROOT


class Optimizer(Config):
    """How weights are updated."""

    learning_rate: float = Field(2e-5, gt=0)
    """Peak rate."""
    betas: tuple[float, float] = (0.9, 0.95)
    """Decay rates."""


class Source(Config):
    """Where text comes from."""

    path: str
    """A folder."""


class Recipe(Config):
    """A schema with every kind of field that the project uses."""

    run_dir: str
    """Where the run goes,
    with all that belongs to it."""
    steps: int | None = Field(None, ge=1)
    """Length of the run."""
    kind: Literal["cosine", "linear"] = "cosine"
    """How the rate falls."""
    languages: tuple[str, ...] = ("en", "zh")
    """Which texts."""
    architecture: dict[str, Any] | None = None
    """Any keys at all."""
    sources: tuple[str | Source, ...] = ()
    """Paths, or sections."""
    optimizer: Optimizer = Optimizer()
    second_optimizer: Optimizer | None = None


@pytest.fixture(scope="session")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder shared by the examples of a property test."""
    return tmp_path_factory.mktemp("config")


def read(folder: Path, text: str | bytes, *overrides: str) -> Recipe:
    """Load a file `recipe.yaml` with this text."""
    file = folder / "recipe.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load(Recipe, file, overrides)


def refusal(folder: Path, text: str | bytes, *overrides: str) -> str:
    """The error message for a file with this text."""
    with pytest.raises(UserError) as caught:
        read(folder, text, *overrides)
    return str(caught.value)


MISTAKES: list[tuple[str | bytes, list[str]]] = [
    ("run_dir: x\nstep: 4\n", ["1 error:", "`step` (", "recipe.yaml:2)", "did you mean `steps`?"]),
    (
        "run_dir: x\noptimizer:\n  lerning_rate: 1\n",
        ["recipe.yaml:3", "did you mean `optimizer.learning_rate`?"],
    ),
    (
        "run_dir: x\nlearning_rate: 1\n",
        ["`learning_rate`", "recipe.yaml:2", "did you mean `optimizer.learning_rate`?"],
    ),
    ("run_dir: x\nbetas: [1, 1]\n", ["did you mean `optimizer.betas`?"]),
    ("run_dir: x\nzzz: 1\n", ["`zzz`", "unknown key; --keys lists all keys"]),
    (
        "steps: 4\nrun_dir: x\nsteps: 5\n",
        ["recipe.yaml:3: duplicate key `steps`", "recipe.yaml:1", "Keep one"],
    ),
    (
        "run_dir: x\noptimizer:\n  betas: [0, 0]\n\n  betas: [0, 1]\n",
        ["recipe.yaml:5: duplicate key `optimizer.betas`", "recipe.yaml:3"],
    ),
    ("run_dir: x\nsteps: many\n", ["`steps` = 'many'", "recipe.yaml:2", "must be a valid integer"]),
    ("run_dir: 2024\n", ["`run_dir` = 2024", "recipe.yaml:1", "string"]),
    ("run_dir: x\nsteps: 0\n", ["`steps` = 0", "recipe.yaml:2", "greater than or equal to 1"]),
    (
        "run_dir: x\noptimizer:\n  learning_rate: 0\n",
        ["`optimizer.learning_rate` = 0", "recipe.yaml:3", "greater than 0"],
    ),
    ("run_dir: x\nkind: cosin\n", ["`kind` = 'cosin'", "recipe.yaml:2", "'cosine' or 'linear'"]),
    ("run_dir: x\nlanguages: en\n", ["`languages` = 'en'", "tuple"]),
    ("run_dir: x\nlanguages:\n  - en\n  - 7\n", ["`languages.1` = 7", "recipe.yaml:4", "string"]),
    (
        "run_dir: x\noptimizer: 3\n",
        ["`optimizer` = 3", "recipe.yaml:2", "must be a section, or the path of a YAML file"],
    ),
    (
        "run_dir: x\nsources:\n  - a\n  - {path: b, paths: c}\n",
        ["`sources.1.paths`", "recipe.yaml:4", "unknown key"],
    ),
    ("run_dir: x\nsources: [{}]\n", ["`sources.0.path`: required, but not set"]),
    ("steps: 4\n", ["`run_dir`: required, but not set"]),
    ("", ["`run_dir`: required, but not set"]),
    ("steps: 0\nkind: x\nepochs: 1\n", ["4 errors:", "`run_dir`", "`steps` = 0", "`kind` = 'x'", "`epochs`"]),
    ("- run_dir\n- x\n", ["recipe.yaml: expected `key: value` lines, found a list"]),
    ("run_dir\n", ["expected `key: value` lines, found only 'run_dir'"]),
    ("run_dir: x\nlanguages: [en\n", ["recipe.yaml:3: not valid YAML"]),
    ("run_dir: x\n\tsteps: 4\n", ["recipe.yaml:2: not valid YAML"]),
    ("run_dir: x\n---\nsteps: 4\n", ["recipe.yaml", "not valid YAML", "another document"]),
    ("run_dir: a\x01b\n", ["recipe.yaml: not valid YAML", "unacceptable character"]),
    ("run_dir: x\nlanguages: &all [*all]\n", ["recipe.yaml: not valid YAML", "alias"]),
    ("run_dir: Müller\n".encode("latin-1"), ["recipe.yaml: not UTF-8 (at byte 10)"]),
    ("run_dir: x\n".encode("utf-16"), ["recipe.yaml: not UTF-8"]),
]


@pytest.mark.parametrize(("text", "expected"), MISTAKES)
def test_a_mistake_in_a_file_is_named_with_its_line(
    tmp_path: Path, text: str | bytes, expected: list[str]
) -> None:
    message = refusal(tmp_path, text)
    for part in expected:
        assert part in message


@pytest.mark.parametrize("text", ["no", "on", "010", "12:30", "2024-02-30", "1_000", "0x10"])
def test_what_yaml_1_1_would_convert_stays_a_string(tmp_path: Path, text: str) -> None:
    (tmp_path / "recipe.yaml").write_text(f"run_dir: {text}\n")
    config = load(Recipe, tmp_path / "recipe.yaml")
    assert config.run_dir == text
    (tmp_path / "again.yaml").write_text(dump(config))
    assert load(Recipe, tmp_path / "again.yaml") == config


def test_a_section_with_nothing_below_it_has_its_defaults(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("run_dir: x\noptimizer:\n")
    assert load(Recipe, tmp_path / "recipe.yaml") == Recipe(run_dir="x")


OVERRIDE_MISTAKES: list[tuple[list[str], list[str]]] = [
    (["optimizer.lerning_rate=1"], ["`optimizer.lerning_rate` (command line)", "`optimizer.learning_rate`?"]),
    (["optimizer={lerning_rate: 1}"], ["`optimizer.lerning_rate` (command", "`optimizer.learning_rate`?"]),
    (["optimizer={betas: [1, x]}"], ["`optimizer.betas.1` = 'x' (command line)"]),
    (["steps=-3"], ["`steps` = -3 (command line)", "greater than or equal to 1"]),
    (["run_dir="], ["`run_dir` = null (command line)"]),
    (["steps=0", "kind=no"], ["2 errors:", "`steps` = 0", "`kind` = 'no'", "'cosine' or 'linear'"]),
    (["steps"], ["`steps` is not of the form key.path=value"]),
    (["=5"], ["`=5` is not of the form key.path=value"]),
    (["steps.more=5"], ["`steps.more`", "`steps` is 4, not a section"]),
    (["languages=[en"], ["the value of `languages`", "not valid YAML"]),
    (["architecture={a: 1, a: 2}"], ["duplicate key `architecture.a`"]),
    (["run_dir=\udcff"], ["the value of `run_dir`", "not valid YAML"]),
    (
        ["sources=[{pth: a}]"],
        ["`sources.0.pth` (command line): unknown key", "`sources.0.path`: required"],
    ),
    (["optimizer=nowhere.yaml"], ["nowhere.yaml: configuration file not found"]),
]


@pytest.mark.parametrize(("overrides", "expected"), OVERRIDE_MISTAKES)
def test_a_mistake_on_the_command_line_is_named_as_such(
    tmp_path: Path, overrides: list[str], expected: list[str]
) -> None:
    message = refusal(tmp_path, "run_dir: x\nsteps: 4\n", *overrides)
    for part in expected:
        assert part in message


def test_a_missing_file_is_reported_with_the_closest_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    with pytest.raises(
        UserError, match=r"configs/pretrain/tinny\.yaml.*Did you mean configs/pretrain/tiny\.yaml\?"
    ):
        load(Recipe, Path("configs/pretrain/tinny.yaml"))


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("optimizer.learning_rate=1e-5", "optimizer.learning_rate", 1e-5),
        ("optimizer.learning_rate=3E+2", "optimizer.learning_rate", 300.0),
        ("optimizer.learning_rate=.5e-3", "optimizer.learning_rate", 5e-4),
        ("steps=", "steps", None),
        ("steps=null", "steps", None),
        ("run_dir='1e5'", "run_dir", "1e5"),
        ("run_dir=a=b", "run_dir", "a=b"),
        ("run_dir=运行", "run_dir", "运行"),
        ("languages=[de, fr]", "languages", ("de", "fr")),
        ("languages=[]", "languages", ()),
        ("sources=[a, {path: b}]", "sources", ("a", Source(path="b"))),
        (
            "architecture={layers: 2, rope: {theta: 1e6}}",
            "architecture",
            {"layers": 2, "rope": {"theta": 1e6}},
        ),
        ("architecture={a: 1e-5, b: -1e5, c: .5E+3}", "architecture", {"a": 1e-5, "b": -1e5, "c": 500.0}),
        ("architecture={a: '1e-5', b: e5, c: 1e}", "architecture", {"a": "1e-5", "b": "e5", "c": "1e"}),
        ("architecture.layers=3", "architecture", {"hidden": 8, "layers": 3}),
        ("optimizer.betas=[0, 1]", "optimizer.betas", (0.0, 1.0)),
        ("second_optimizer.learning_rate=7", "second_optimizer", Optimizer(learning_rate=7)),
        ("second_optimizer={learning_rate: 7}", "second_optimizer", Optimizer(learning_rate=7)),
    ],
)
def test_an_override_gives_its_key_the_value(tmp_path: Path, override: str, key: str, value: object) -> None:
    found: Any = read(tmp_path, "run_dir: x\nsteps: 4\narchitecture: {hidden: 8}\n", override)
    for name in key.split("."):
        found = getattr(found, name)
    assert found == value


def test_defaults_then_the_file_then_the_command_line_in_order(tmp_path: Path) -> None:
    recipe = read(tmp_path, "run_dir: x\nsteps: 4\n", "steps=5", "steps=6")
    assert (recipe.run_dir, recipe.steps, recipe.kind) == ("x", 6, "cosine")
    assert load(Recipe, None, ["run_dir=y"]) == Recipe(run_dir="y")


def test_a_section_may_be_in_its_own_file_and_be_overridden(tmp_path: Path) -> None:
    section = tmp_path / "optimizer.yaml"
    section.write_text("learning_rate: 1e-4\nbetas: [0.5, 0.6]\n")
    in_the_file = read(tmp_path, f"run_dir: x\noptimizer: {section}\n", "optimizer.learning_rate=3")
    on_the_command_line = read(tmp_path, "run_dir: x\n", f"optimizer={section}", "optimizer.learning_rate=3")
    assert in_the_file == on_the_command_line
    assert in_the_file.optimizer == Optimizer(learning_rate=3, betas=(0.5, 0.6))
    section.write_text("betas: [0.5, 0.6]\n\nlearning_rate: -1\nstep: 3\n")
    message = refusal(tmp_path, f"run_dir: x\noptimizer: {section}\n")
    assert f"`optimizer.learning_rate` = -1 ({section}:3)" in message
    assert f"`optimizer.step` ({section}:4)" in message


WRITABLE = st.text(st.characters(codec="utf-8", exclude_characters="\x85"))  # PyYAML itself loses U+0085
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | WRITABLE,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WRITABLE, inner, max_size=3),
    max_leaves=6,
)
NUMBER_LIKE = st.sampled_from(
    ["1e5", "-.5E+3", "1", "0x1f", "1_000", "12:30", "2024-01-01", "null", "yes", "~", "", "<<", "="]
)
TEXT = WRITABLE | NUMBER_LIKE
OPTIMIZERS = st.builds(
    Optimizer, learning_rate=st.floats(0, exclude_min=True), betas=st.tuples(st.floats(0, 1), st.floats(0, 1))
)
RECIPES = st.builds(
    Recipe,
    run_dir=TEXT,
    steps=st.none() | st.integers(1),
    kind=st.sampled_from(["cosine", "linear"]),
    languages=st.lists(TEXT, max_size=3).map(tuple),
    architecture=st.none() | st.dictionaries(TEXT, JSON, max_size=3),
    sources=st.lists(TEXT | st.builds(Source, path=TEXT), max_size=3).map(tuple),
    optimizer=OPTIMIZERS,
    second_optimizer=st.none() | OPTIMIZERS,
)


@settings(max_examples=150, deadline=None)
@given(recipe=RECIPES)
def test_what_is_dumped_loads_again_to_the_same(scratch: Path, recipe: Recipe) -> None:
    assert read(scratch, dump(recipe)) == recipe


def test_keys_prints_every_key_with_its_default_and_meaning(capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser, None)
    assert from_arguments(Recipe, parser.parse_args(["--keys"])) is None
    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == ["run_dir (required)", "    Where the run goes,", "    with all that belongs to it."]
    for line in (
        "steps = null",
        "languages = [en, zh]",
        "optimizer.learning_rate = 2e-05",
        "second_optimizer.betas = [0.9, 0.95]",
    ):
        assert line in lines


def test_without_keys_the_arguments_give_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("run_dir: x\n")
    parser = argparse.ArgumentParser()
    add_arguments(parser, str(tmp_path / "r.yaml"))
    assert from_arguments(Recipe, parser.parse_args(["steps=3"])) == Recipe(run_dir="x", steps=3)
