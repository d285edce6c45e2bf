"""The documentation: links lead somewhere, and every command in it is one that the program understands.

Commands in code (blocks and inline) that begin with make, python -m, torchrun, sbatch or bash are taken to
the parser of the room that they name: through `make --dry-run`, and through what SLURM scripts add. What has
a configuration is loaded with its overrides; what has a --dry-run is run with it, for as many processes as it
asks for.
"""

import argparse
import importlib
import importlib.util
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from core.config import loader as configuration
from core.config.loader import load
from core.errors import UserError
from eval.tasks.task import TaskConfig
from tests.conftest import ROOT
from tests.reading_path import lengths_by_file

PAGES = sorted(path.relative_to(ROOT).as_posix() for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
STARTS = re.compile(r"make [a-z]|(python|torchrun|sbatch|bash) ")
TINY = {"pretrain": "configs/pretrain/tiny.yaml", "sft": "configs/sft/tiny.yaml",
        "tools.refresh": "configs/refresh.yaml", "tools.plan": "configs/patent-llama/plan.yaml",
        "tools.study": "configs/studies/demo.yaml"}  # fmt: skip
EXAMPLES = {"mine.yaml": "configs/data/patents.yaml", "my/summary.yaml": "configs/eval/title.yaml"}
"""Files that a reader is told to write, and one of the kind that is here."""
NAMED = ("FILE", "CONFIG.yaml", "mine.yaml", "qa.yaml")
WRITTEN = {
    "chats": "output_dir: a\nsources: [{path: a}]\n",
    "generate": "output_dir: a\nendpoint: {model: a}\nsources: [{path: a}]\n",
}
"""The least of a configuration of which none is here."""


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and GitLab make them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_files_and_headings_that_are_there(page: str) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", (ROOT / page).read_text("utf-8")):
        path, _, anchor = target.partition("#")
        if "://" in target:
            continue
        file = (ROOT / page).parent / path if path else ROOT / page
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), target


def commands(page: str) -> Iterator[tuple[str, bool]]:
    """The commands in a page's code, each on one line without the words that explain it; and whether it
    stands within a sentence, where it may be no more than a name."""
    text = (ROOT / page).read_text("utf-8")
    fenced = re.findall(r"^```[a-z]*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    rest = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    indented = re.findall(r"^ {4}(\S.*)$", rest, re.MULTILINE)
    inline = [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", rest)]
    for block in [*fenced, *indented, *inline]:
        within = block in inline
        open_line = ""
        for line in re.sub(r"\\\n\s*", " ", block).splitlines():
            open_line = f"{open_line} {line.strip()}".strip()
            if open_line.count('"') % 2 == 0:
                if STARTS.match(open_line):
                    yield re.split(r"\s{3,}(?![\s-])|\s+#\s|\s[>|]\s", open_line)[0], within
                open_line = ""


def as_modules(command: str) -> Iterator[tuple[str, list[str], int]]:
    """The modules that a command runs, their arguments, and the number of processes."""
    words = shlex.split(command)
    if words[0] == "make":
        dry = ["make", "--dry-run", "--no-print-directory", "--assume-old=.venv/.patent-llama-ready"]
        done = subprocess.run([*dry, *words[1:]], cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{command}: {done.stderr}"
        for part in re.split(r"\n|;\s", done.stdout.replace("\\\n", " ")):
            value = re.fullmatch(r'\s*\w+="\$\((.+)\)"', part)  # model="$(… -m tools.newest chat)"
            called = value[1] if value else part
            if "-m " in called and not called.startswith("#"):
                yield from as_modules(re.split(r"\s[>|;]\s", called)[0])
        return
    if words[0] in ("sbatch", "bash"):
        at = next(i for i, word in enumerate(words[1:], 1) if not word.startswith("-"))
        assert (ROOT / words[at]).is_file(), command
        match Path(words[at]).name:
            case "data.sbatch":
                yield "data", ["run", *words[at + 1 :]], 1
            case "train.sbatch" | "room.sbatch":
                yield words[at + 1], words[at + 2 :], 8
        return
    number = next((word for flag, word in pairwise(words) if flag == "--processes"), "")
    starts = [i for i, word in enumerate(words[:-1]) if word == "-m"]
    at = starts[0] if words[starts[0] + 1] != "core.launch" or len(starts) == 1 else starts[1]
    number = number or next(
        (word.split("=")[1] for word in words if word.startswith("--nproc-per-node=")), ""
    )
    yield words[at + 1], words[at + 2 :], int(number) if number.isdigit() else 1


class Understood(Exception):
    """The command was parsed, and its configuration is right."""


def understand(module: str, arguments: list[str], processes: int, patch: pytest.MonkeyPatch) -> None:
    """Take arguments to a module's own parser; AssertionError where it does not understand them."""
    file = f"{module}.__main__" if (ROOT / module.replace(".", "/")).is_dir() else module
    assert importlib.util.find_spec(file), module
    elsewhere = ("benchmarks", "tests", "pytest", "json", "coverage")
    if module.partition(".")[0] in elsewhere or module == "core.launch":
        return

    def stop_after(parse: Any) -> Any:
        def parsed(self: Any, *given: Any, **more: Any) -> argparse.Namespace:
            found: argparse.Namespace = parse(self, *given, **more)
            if hasattr(found, "dry_run"):
                found.dry_run = True
                return found
            if not hasattr(found, "keys"):
                raise Understood
            patch.setattr(configuration, "load", loaded)
            return found

        return parsed

    def loaded(*given: Any) -> None:
        load(*given)
        raise Understood

    for name in ("parse_args", "parse_intermixed_args"):
        patch.setattr(argparse.ArgumentParser, name, stop_after(getattr(argparse.ArgumentParser, name)))
    patch.delenv("WORLD_SIZE", raising=False)
    if processes > 1:  # one process is not launched
        patch.setenv("WORLD_SIZE", str(processes))
    patch.setattr(sys, "argv", [module, *arguments])
    main = importlib.import_module(file).main
    try:
        code = main()
    except Understood:
        return
    except SystemExit as ended:
        code = ended.code
    except UserError as error:
        raise AssertionError(str(error)) from None
    assert not code, f"python -m {module} {shlex.join(arguments)}"


def filled(module: str, words: list[str], folder: Path) -> list[str]:
    """The arguments with a file that is there in the place of what a reader is to name."""
    config = "configs/sft/dpo.yaml" if "dpo" in words[:1] else TINY.get(module, "configs/data/tiny.yaml")
    if words[0] in WRITTEN:
        config = str(folder / "written.yaml")
        Path(config).write_text(WRITTEN[words[0]])
    found = []
    for i, word in enumerate(words):
        if i and words[i - 1] == "--config":
            found.append(config if word in NAMED or word == "…" else word)
        elif word != "…":
            option = re.sub(r"^\[(--[\w-]+)\]$", r"\1", word)
            key, equals, value = option.rpartition("=")
            found.append(key + equals + ",".join(EXAMPLES.get(part, part) for part in value.split(",")))
    return ["2" if word == "N" else word for word in found]


@pytest.mark.parametrize("page", PAGES)
def test_every_command_is_understood(
    page: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(ROOT)
    wrong = []
    for command, inline in dict.fromkeys(commands(page)):
        if "NAME=…" in command or "-m NAME" in command or "-m ROOM" in command:
            continue
        for module, arguments, processes in as_modules(command):
            given = filled(module, arguments, tmp_path) if arguments else []
            with monkeypatch.context() as patch:
                try:
                    understand(module, given, processes if given == arguments else 1, patch)
                except AssertionError as error:
                    said = f"{error} {capsys.readouterr().err[-600:]}"
                    if "arguments are required" not in said or not (inline or "…" in command):
                        wrong.append(f"{command}\n    {said}")
    assert not wrong, "\n".join(wrong)


def test_the_commands_of_the_pages_are_found() -> None:
    """Against a test that passes because it reads nothing."""
    found = {page: list(commands(page)) for page in PAGES}
    assert len(found["README.md"]) > 15
    assert sum(map(len, found.values())) > 100
    assert any(
        "data.tokenizer.path=" in command and command.endswith('"') for command, _ in found["README.md"]
    )


def test_a_command_that_is_wrong_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(ROOT)
    for wrong in (
        "python -m data rum --config configs/data/tiny.yaml",
        "python -m eval run --modle x --tasks patent",
        "make pretrain CONFIG=configs/pretrain/tiny.yaml ARGS=training.step=5",
        "sbatch configs/slurm/train.sbatch sft --config configs/sft/none.yaml",
        "make pretrain CONFIG=configs/pretrain/8x80gb.yaml GPUS=7",
    ):
        with pytest.raises(AssertionError), monkeypatch.context() as patch:
            for module, arguments, processes in as_modules(wrong):
                understand(module, filled(module, arguments, tmp_path), processes, patch)


def test_the_task_of_the_how_to_is_one() -> None:
    (text,) = re.findall(
        r"```yaml\n(# my/summary.yaml.*?)```", (ROOT / "docs/how-to.md").read_text("utf-8"), re.DOTALL
    )
    settings = [line for line in text.splitlines() if ": " in line and not line.startswith("#")]
    assert load(TaskConfig, None, [line.replace(": ", "=", 1) for line in settings]).layout == "jsonl"


def test_the_readme_stays_short() -> None:
    assert (ROOT / "README.md").read_text("utf-8").count("\n") < 200


def test_the_readme_states_the_length_of_the_code_from_the_command_to_the_weights() -> None:
    text = " ".join((ROOT / "README.md").read_text("utf-8").split())
    found = re.search(r"is ([\d,]+) lines in (\d+) of the files of", text)
    assert found
    lengths = lengths_by_file()
    stated = int(found[1].replace(",", ""))
    assert abs(stated - sum(lengths.values())) <= 0.05 * stated, sum(lengths.values())
    assert abs(int(found[2]) - len(lengths)) <= 2, len(lengths)
