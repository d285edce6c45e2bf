"""The renewal of a served model in Airflow: a task for each step of configs/refresh.yaml, and `publish`.

Link this file into the folder of DAGs (Airflow 2.9 or newer) and set PATENT_LLAMA to the checkout. A task
that is tried again goes on where it stopped. If there is nothing new, the other tasks are skipped; a worse
model fails `compare`.
"""

import os
from datetime import datetime, timedelta
from pathlib import Path
from shlex import quote

import yaml
from airflow import DAG

try:
    from airflow.providers.standard.operators.bash import BashOperator  # Airflow 3
except ImportError:
    from airflow.operators.bash import BashOperator

ROOT = Path(os.environ.get("PATENT_LLAMA") or Path(__file__).resolve().parents[2])
RECIPE = os.environ.get("PATENT_LLAMA_REFRESH", "configs/refresh.yaml")
REFRESH = f"{os.environ.get('VENV', '.venv')}/bin/python -m tools.refresh --config {quote(RECIPE)}"

one = {"max_active_tasks": 1, "default_args": {"retries": 2, "retry_delay": timedelta(minutes=5)}}
begin = datetime(2026, 1, 1)
with DAG("refresh", schedule="@daily", start_date=begin, catchup=False, max_active_runs=1, **one):
    steps = yaml.safe_load((ROOT / RECIPE).read_text("utf-8"))["steps"]
    here = {"cwd": str(ROOT), "append_env": True, "skip_on_exit_code": [3]}
    tasks = {
        step["name"]: BashOperator(
            task_id=step["name"], bash_command=f"{REFRESH} --until {step['name']}", **here
        )
        for step in steps
    }
    publish = BashOperator(task_id="publish", bash_command=REFRESH, **here)
    for step in steps:
        tasks[step["name"]] >> publish
        for need in step.get("needs", ()):
            tasks[need] >> tasks[step["name"]]
