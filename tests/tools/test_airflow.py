"""The DAG has the steps of the file of steps, and runs where Airflow is installed: AIRFLOW_PYTHON names the
Python of its environment."""

import os
import runpy
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import ROOT
from tests.tools.test_refresh import STEPS

DAG_FILE = ROOT / "configs" / "airflow" / "refresh.py"


class Task:
    """What the file uses of Airflow's BashOperator."""

    made: list["Task"]

    def __init__(self, **given: Any) -> None:
        self.given, self.before = given, set[str]()
        self.made.append(self)

    def __rshift__(self, other: "Task") -> "Task":
        other.before.add(self.given["task_id"])
        return other


class Dag:
    """What the file uses of Airflow's DAG."""

    def __init__(self, *names: str, **given: Any) -> None:
        self.names, self.given = names, given

    def __enter__(self) -> "Dag":
        return self

    def __exit__(self, *_: object) -> None:
        pass


def test_the_dag_has_a_task_for_each_step_and_one_that_publishes(monkeypatch: pytest.MonkeyPatch) -> None:
    airflow, bash = types.ModuleType("airflow"), types.ModuleType("airflow.providers.standard.operators.bash")
    Task.made = []
    vars(airflow)["DAG"], vars(bash)["BashOperator"] = Dag, Task
    monkeypatch.setitem(sys.modules, "airflow", airflow)
    monkeypatch.setitem(sys.modules, bash.__name__, bash)
    monkeypatch.delenv("PATENT_LLAMA", raising=False)
    runpy.run_path(str(DAG_FILE))
    steps = yaml.safe_load((ROOT / "configs" / "refresh.yaml").read_text("utf-8"))["steps"]
    *tasks, publish = Task.made
    assert [task.given["task_id"] for task in tasks] == [step["name"] for step in steps]
    assert [task.before for task in tasks] == [set(step.get("needs", ())) for step in steps]
    assert publish.before == {step["name"] for step in steps}
    assert tasks[0].given["bash_command"].endswith("--config configs/refresh.yaml --until data")
    assert publish.given["bash_command"].endswith("--config configs/refresh.yaml")


@pytest.mark.slow
@pytest.mark.skipif("AIRFLOW_PYTHON" not in os.environ, reason="AIRFLOW_PYTHON names no Python with Airflow")
def test_airflow_runs_it(tmp_path: Path) -> None:
    text = STEPS.replace("incoming: raw", f"incoming: {tmp_path}/raw").replace(
        "runs/refresh", f"{tmp_path}/runs"
    )
    for name in ("corpora/", "indexes/", "models/"):
        text = text.replace(f": {name}", f": {tmp_path}/{name}")
    (tmp_path / "steps.yaml").write_text(text, "utf-8")
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "1").write_text("1", "utf-8")
    environment = {
        **os.environ, "AIRFLOW_HOME": str(tmp_path / "airflow"), "AIRFLOW__CORE__LOAD_EXAMPLES": "false",
        "AIRFLOW__CORE__DAGS_FOLDER": str(DAG_FILE.parent), "PATENT_LLAMA": str(ROOT),
        "PATENT_LLAMA_REFRESH": str(tmp_path / "steps.yaml"), "VENV": sys.prefix,
    }  # fmt: skip

    def airflow(*words: str) -> str:
        command = [os.environ["AIRFLOW_PYTHON"], "-m", "airflow", *words]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]
        return done.stdout + done.stderr

    airflow("db", "migrate")
    airflow("dags", "test", "refresh", "2026-01-02")
    assert (tmp_path / "models/current").resolve() == tmp_path / "runs/0001/model"
    airflow("dags", "test", "refresh", "2026-01-03")
    assert not (tmp_path / "runs/0002").exists()
