"""A study as SLURM jobs: each step of each arm and seed once, a job that its time limit cuts goes on."""

import json
import re
import sys
from pathlib import Path

import pytest
import yaml

from tests.slurm.cluster import Cluster
from tests.slurm.test_recipe import DATA, OPTIONS, PRETRAIN, TASK, TRAINING

pytestmark = pytest.mark.slurm

SETTINGS = "run_dir=${here} optimizer.learning_rate=${rate} training.seed=${seed}"
STUDY = {
    "study": {"axes": {"rate": [1e-4, 1e-2]}, "seeds": 2, "scores": ["texts"]},
    "variables": {"folder": "study"},
    "steps": [
        {"name": "corpus", "command": "data run --config toy/data.yaml", "outputs": ["corpora/toy/pack"]},
        {
            "name": "trained",
            "needs": ["corpus"],
            "command": [
                f"pretrain {word} --config toy/pretrain.yaml {SETTINGS}" for word in ("--prepare", "")
            ],
            "outputs": ["${here}/model"],
            "resumable": True,
            "resources": {"gpus": 1},
        },
        {
            "name": "texts",
            "command": "eval run --model ${trained}/model --tasks toy/task.yaml --data toy --output ${here}",
            "outputs": ["${here}"],
            "resumable": True,
        },
    ],
}


@pytest.mark.timeout(1200)
def test_a_study_is_jobs_and_one_that_is_cut_goes_on(slurm: Cluster, checkout: Path) -> None:
    (checkout / "toy").mkdir()
    pretrain = PRETRAIN | {"training": {**TRAINING, "steps": 100, "save_every_steps": 20}}
    parts = {"data": DATA, "pretrain": pretrain, "task": TASK, "study": STUDY}
    for name, content in parts.items():
        (checkout / "toy" / f"{name}.yaml").write_text(yaml.safe_dump(content))
    texts = [{"text": f"A housing with {number} ribs and a cover."} for number in range(40)]
    (checkout / "toy/texts.jsonl").write_text("".join(json.dumps(text) + "\n" for text in texts))

    chain = ["bash", "configs/slurm/submit.sh", "--plan", "toy/study.yaml", *OPTIONS]
    jobs = dict(re.findall(r"--job-name=(\S+) .*# job (\d+)", slurm(*chain, cwd=checkout)))
    assert len(jobs) == 1 + 4 + 4
    cut = jobs["trained-rate-0.01-seed-2"]
    log = checkout / "study/steps/trained-rate-0-01-seed-2.log"
    slurm.until(lambda: log.exists() and "saved " in log.read_text(), 240, cut)
    slurm.cut(cut, 60)
    for job in jobs.values():
        slurm.wait(job)

    records = {file.stem: json.loads(file.read_text()) for file in (checkout / "study/steps").glob("*.json")}
    assert len(records) == len(jobs)
    starts = {name: record.pop("starts") for name, record in records.items()}
    assert starts.pop("trained-rate-0-01-seed-2") == 2
    assert set(starts.values()) == {1}
    assert "resumed from" in log.read_text()
    study = ["-m", "tools.study", "--config", "toy/study.yaml"]
    shown = slurm(sys.executable, *study, cwd=checkout)
    assert "all 9 steps are up to date" in shown
    assert "rate 0.01" in (checkout / "study/report/report.html").read_text()
