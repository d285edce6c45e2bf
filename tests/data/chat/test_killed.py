"""`python -m data chats`, killed at any moment, goes on and makes the folder that one run makes."""

import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import ROOT, run
from tests.data.chat.chats import write_lines, write_tokenizer


def files(folder: Path) -> dict[str, bytes]:
    """Everything but the manifest, which knows the hour."""
    found = (file for file in folder.rglob("*") if file.is_file() and file.name != "manifest.json")
    return {str(file.relative_to(folder)): file.read_bytes() for file in found}


@pytest.mark.slow
def test_killed_at_four_moments_the_folder_is_that_of_one_run(tmp_path: Path) -> None:
    draw = random.Random(0)
    (tmp_path / "chats").mkdir()
    for number in range(12):
        rows = [
            {"instruction": f"pump {draw.random()}?", "output": "水泵 " * draw.randint(1, 60)}
            for _ in range(300)
        ]
        write_lines(tmp_path / f"chats/{number:02}.jsonl", rows)
    tokenizer = write_tokenizer(tmp_path / "tokenizer")
    sources = f"sources=[{{path: {tmp_path}/chats}}]"
    command = ["data", "chats", "--tokenizer", str(tokenizer), sources, "template=chatml", "engine.workers=2"]
    whole, folder = tmp_path / "whole", tmp_path / "killed"
    began = time.monotonic()
    done = run(*command, f"output_dir={whole}")
    assert done.returncode == 0, done.stderr
    took = time.monotonic() - began
    killed = 0
    while killed < 4:
        process = subprocess.Popen(
            [sys.executable, "-m", *command, f"output_dir={folder}"],
            cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        time.sleep(draw.uniform(0.2, 1.0) * took)
        killed += process.poll() is None
        process.kill()
        if process.wait() == 0:
            assert files(folder) == files(whole)
            shutil.rmtree(folder)
    done = run(*command, f"output_dir={folder}")
    assert done.returncode == 0, done.stderr
    assert files(folder) == files(whole)
    assert not [path for path in tmp_path.iterdir() if path.name.endswith((".unfinished", ".partial"))]
