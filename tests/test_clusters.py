"""SLURM scripts, the submit script and the containers: they parse, chain, and name what is there."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

SCRIPTS = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob("configs/slurm/*"))
SLURM = [name for name in SCRIPTS if name.endswith(".sbatch")]
VENV = str(Path(sys.executable).parent.parent)


def submit(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """The submit script, which without --dry-run would need SLURM."""
    return subprocess.run(
        ["bash", "configs/slurm/submit.sh", *arguments], cwd=ROOT,
        env=os.environ | {"VENV": VENV} | variables, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("script", [*SCRIPTS, "setup.sh"])
def test_a_script_is_right_for_bash_and_shellcheck(script: str) -> None:
    checked = subprocess.run(["bash", "-n", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr
    shellcheck = Path(sys.executable).parent / "shellcheck"
    found = subprocess.run(
        [shellcheck, "--severity=warning", script], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stdout


@pytest.mark.parametrize("version", ["2.10.0", "2.11.0a0+cluster"])
def test_an_environment_with_an_older_torch_is_refused_before_anything_is_installed(
    tmp_path: Path, version: str
) -> None:
    (tmp_path / "torch.py").write_text(f"__version__ = {version!r}\n")
    python = tmp_path / "venv/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nPYTHONPATH={tmp_path} exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    done = subprocess.run(
        ["bash", "setup.sh"], cwd=ROOT, env=os.environ | {"VENV": str(tmp_path / "venv")},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert f"torch {version} is installed; 2.11 or newer is needed" in done.stderr
    assert "using the installed torch" not in done.stdout


@pytest.mark.parametrize("script", SLURM)
def test_a_job_is_queued_again_when_it_is_ended_early(script: str) -> None:
    text = (ROOT / script).read_text("utf-8")
    options = dict(re.findall(r"^#SBATCH --([\w-]+)=?(\S*)$", text, re.MULTILINE))
    assert {"requeue", "signal", "time", "output", "open-mode"} <= options.keys()
    assert "USR1@" in options["signal"]
    assert "scontrol requeue" in text
    assert "trap" in text


@pytest.mark.parametrize("script", SLURM)
def test_the_folder_of_a_log_is_in_a_clone(script: str) -> None:
    (output,) = re.findall(
        r"^#SBATCH --output=(\S+)/slurm-", (ROOT / script).read_text("utf-8"), re.MULTILINE
    )
    listed = subprocess.run(["git", "ls-files", output], cwd=ROOT, capture_output=True, text=True, check=True)
    assert listed.stdout.strip(), "SLURM does not make it, and a job whose log cannot be opened fails"


FAKE = {
    "scontrol": '#!/bin/sh\n[ "$1" = show ] && echo node-1 && exit\necho "$@" >> "$NOTES"\n',
    # As srun: its options, then a command, which here is run twice; the highest code is returned.
    "srun": """#!/bin/bash
echo "srun $*" >> "$NOTES"
while [[ $1 == --* ]]; do shift; done
NODE=1 "$@"; first=$?
NODE=2 "$@"; second=$?
exit $((first > second ? first : second))
""",
    "python": """#!/bin/bash
echo "python $*" >> "$NOTES"
[[ $* == *--prepare ]] && exit "$PREPARE"
kill -USR1 $PPID; sleep 0.1 # SLURM signals all of a step's processes
[ "$NODE" = 1 ] && exit "$FIRST"
exit "$SECOND"
""",
}


@pytest.mark.parametrize(
    ("codes", "status", "requeued"),
    [
        ((0, 0, 0), 0, False),
        ((138, 0, 0), 0, True),  # a signal while the data are prepared
        ((2, 0, 0), 2, False),
        ((0, 143, 143), 0, True),
        ((0, 138, 143), 0, True),
        ((0, 2, 143), 2, False),  # one failed, so srun ended the other
        ((0, 143, 1), 1, False),
        ((0, 137, 143), 255, False),
    ],
)
def test_a_training_job_is_queued_again_after_a_signal_and_not_after_an_error(
    tmp_path: Path, codes: tuple[int, int, int], status: int, requeued: bool
) -> None:
    for name, text in FAKE.items():
        (tmp_path / "bin").mkdir(exist_ok=True)
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)
    notes = tmp_path / "notes"
    variables = dict(zip(("PREPARE", "FIRST", "SECOND"), map(str, codes), strict=True))
    variables |= {"PATH": f"{tmp_path}/bin:/usr/bin:/bin", "NOTES": str(notes), "VENV": str(tmp_path)}
    variables |= {"SLURM_JOB_ID": "7", "SLURM_NNODES": "2", "SLURM_JOB_NODELIST": "node-[1-2]"}
    variables |= {"SLURM_CPUS_PER_TASK": "64"}
    done = subprocess.run(
        ["bash", "configs/slurm/train.sbatch", "pretrain", "--config", "a file", "x=1"], cwd=ROOT,
        env=variables, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == status, done.stderr
    written = notes.read_text().splitlines()
    assert ("requeue 7" in written) == requeued
    steps = [line for line in written if line.startswith("srun ")]
    assert len(steps) == (1 if codes[0] else 2)
    assert all(" --cpus-per-task=64 --kill-on-bad-exit=1 " in step for step in steps)
    assert "python -m pretrain --config a file x=1 --prepare" in written
    if not codes[0]:
        assert any(
            line.endswith("--rdzv-endpoint=node-1:20007 -m pretrain --config a file x=1") for line in written
        )


def test_the_recipe_is_chained_each_job_after_those_that_it_needs() -> None:
    done = submit("--dry-run", "--account=patents", GPUS="4", NODES="2", DATA_TASKS="3", PATH="/usr/bin:/bin")
    assert done.returncode == 0, done.stderr
    jobs = [line for line in done.stdout.splitlines() if line.startswith("sbatch ")]
    names = ["data", "pretrain", "general", "domain", "delta", "eval"]
    assert [re.findall(r"--job-name=(\S+)", job) for job in jobs] == [[name] for name in names]
    assert "--dependency" not in jobs[0]
    needed = ["data", "pretrain", "general", "domain", "domain"]  # the evaluation does not wait for the delta
    for before, job in zip(needed, jobs[1:], strict=True):
        assert f"--dependency=afterok:ID-OF-{before} " in job
    assert all("--account=patents" in job and "--kill-on-invalid-dep=yes" in job for job in jobs)
    data, training = "configs/slurm/data.sbatch --config", "configs/slurm/train.sbatch"
    assert f"--array=0-2 --account=patents {data} configs/patent-llama/data.yaml" in jobs[0]
    assert f"--nodes=2 --gpus-per-node=4 --account=patents {training} pretrain --config" in jobs[1]
    leads = [re.findall(r" --signal=USR1@(\d+) .*--account", job) for job in jobs]
    assert [len(lead) for lead in leads] == [0, 1, 1, 1, 0, 0], "training jobs only; an own --signal follows"
    assert all(int(seconds) >= 300 for lead in leads for seconds in lead), "120 were too few for 7B"
    assert f"--account=patents {training} sft --config configs/patent-llama/domain.yaml" in jobs[3]
    assert jobs[4].rstrip().endswith("--resume")
    assert "--gpus-per-node=4 --mem=0 --account=patents configs/slurm/room.sbatch eval run" in jobs[5]
    assert " x 8 processes x" in done.stdout, "checked for the processes that it would have"


def test_a_study_is_a_job_for_each_arm_and_seed_of_a_step() -> None:
    study = ["--plan", "configs/studies/replay.yaml", "--dry-run"]
    done = submit(*study, SEEDS="2", STUDY_ARGS="replay=0,0.25 gpus=1", PATH="/usr/bin:/bin")
    assert done.returncode == 0, done.stderr
    jobs = [line for line in done.stdout.splitlines() if line.startswith("sbatch ")]
    assert len(jobs) == 2 * 2 * 2
    (last,) = (job for job in jobs if "--job-name=texts-replay-0.25-seed-2 " in job)
    assert "--dependency=afterok:ID-OF-continued-replay-0.25-seed-2 --gpus-per-node=8 " in last
    command = "tools.study --config configs/studies/replay.yaml --seeds 2 --step texts-replay-0.25-seed-2"
    assert f"configs/slurm/steps.sbatch {command} replay=0\\,0.25 gpus=1" in last


def test_a_mistake_in_a_late_step_submits_nothing(tmp_path: Path) -> None:
    plan = tmp_path / "plan.yaml"
    mistake = "eval run --model x --tasks claims-zh"
    plan.write_text(
        "architecture: {}\nmachines: [{name: a, card: H200, gpus: 1, gib: 1}]\n"
        "steps: [{name: delta, command: delta make --base a --target b --delta c},"
        f" {{name: eval, command: {mistake}}}]\n"
    )
    done = submit("--plan", str(plan), PATH="/usr/bin:/bin")
    assert done.returncode == 2
    assert "claims-zh-en" in done.stderr
    assert "sbatch" not in done.stdout
    assert submit("--plan", str(plan), "--from", "sft", "--dry-run").returncode == 2
    assert "--dependency" not in submit("--dry-run", "--from", "delta").stdout.split("sbatch")[1]


CONTAINERS = ["configs/container/Dockerfile", "configs/container/patent-llama.def"]


@pytest.mark.parametrize("file", CONTAINERS)
def test_a_container_copies_what_is_there_and_installs_what_is_pinned(file: str) -> None:
    text = (ROOT / file).read_text("utf-8")
    if file.endswith("Dockerfile"):
        copied = [
            path for line in re.findall(r"^COPY (.*)$", text, re.MULTILINE) for path in line.split()[:-1]
        ]
        sent = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
        assert "*" in sent, "runs and corpora stay here"
        assert {f"!{path.partition('/')[0]}" for path in copied} <= set(sent)
    else:
        section = text.partition("%files\n")[2].partition("%post")[0]
        copied = [line.split()[0] for line in section.splitlines() if line.strip()]
    assert {"pyproject.toml", "constraints.txt", "setup.sh", "delta/kernel.c"} <= set(copied)
    for path in copied:
        assert (ROOT / path).exists(), path
        ignored = subprocess.run(["git", "check-ignore", "-q", path], cwd=ROOT, check=False)
        assert ignored.returncode == 1, f"{path} is not in a clone"
    assert "pip install" not in text, "setup.sh alone installs, from constraints.txt"
    assert "bash setup.sh" in text
    pins = dict(
        re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / "constraints.txt").read_text("utf-8"), re.MULTILINE)
    )
    for name, version in re.findall(r"([\w.-]+)==([\w.]+)", text):
        assert pins[name] == version


def test_both_containers_have_the_same_base_and_system_packages() -> None:
    docker, apptainer = ((ROOT / file).read_text("utf-8") for file in CONTAINERS)
    (tag,) = re.findall(r"^ARG CUDA=(\S+)$", docker, re.MULTILINE)
    assert f"From: nvidia/cuda:{tag}\n" in apptainer
    installed = [
        re.findall(r"--no-install-recommends ([^\\\n]*)", text)[0].split() for text in (docker, apptainer)
    ]
    assert installed[0] == installed[1]


def test_every_room_is_in_the_image() -> None:
    text = (ROOT / CONTAINERS[0]).read_text("utf-8")
    for room in ("core", "data", "pretrain", "sft", "delta", "eval", "configs"):
        assert f"COPY {room} {room}\n" in text
