"""A SLURM cluster of two nodes on this machine, with all its files in one folder.

    with two_nodes(folder) as slurm:
        job = slurm("sbatch", "--parsable", "--nodes=2", "job.sbatch")
        slurm.wait(job)

A munged, a slurmctld and a slurmd per node run in namespaces of their own: for them `n1` and `n2` are this
machine (/etc/hosts), and no process of the cluster or of its jobs outlives it. SLURM takes a node to have 64
cores and 8 GPUs, and binds nothing. Needs root and Debian's packages slurm-wlm and munge.
"""

import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "squeue", "unshare")
CONFIGURATION = """\
ClusterName=two-nodes
SlurmctldHost=n1(127.0.0.1)
SlurmctldPort={ports[0]}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
MailProg=/bin/true
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=2,bf_interval=2
GresTypes=gpu
KillWait=30
SlurmdTimeout=20
ReturnToService=2
NodeName=n1 NodeAddr=127.0.0.1 Port={ports[1]} CPUs=64 RealMemory=200000 Gres=gpu:8
NodeName=n2 NodeAddr=127.0.0.1 Port={ports[2]} CPUs=64 RealMemory=200000 Gres=gpu:8
PartitionName=all Nodes=n1,n2 Default=YES State=UP
"""
START = """\
hostname n1
mount --bind {folder}/hosts /etc/hosts
munged --foreground --force --key-file={folder}/munge.key --socket={folder}/munge.socket \\
  --log-file={folder}/munged.log --pid-file={folder}/munged.pid --seed-file={folder}/munged.seed &
until [ -S {folder}/munge.socket ]; do sleep 0.1; done
slurmctld -D -c &
for node in n1 n2; do
  unshare --uts --pid --fork --kill-child --mount-proc sh -c "hostname $node; exec slurmd -D -N $node" &
done
wait
"""


def missing() -> str:
    """What is not here for such a cluster; empty if all is."""
    absent = [name for name in PROGRAMS if shutil.which(name) is None]
    if absent:
        return f"{', '.join(absent)} not found: apt-get install slurm-wlm munge"
    return "" if os.geteuid() == 0 else "only root can start two SLURM nodes on one machine"


@dataclass(frozen=True)
class Cluster:
    """The running cluster; commands need `variables` in their environment."""

    folder: Path
    variables: dict[str, str]
    daemons: int
    """The process that started them."""

    def __call__(self, *words: str | Path, cwd: Path | None = None, **variables: str) -> str:
        """Run a command of SLURM, or one that uses them; its standard output. Fails with its error."""
        done = subprocess.run(
            list(map(str, words)),
            env=self.variables | variables,
            cwd=cwd,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{words}: {done.stderr}{done.stdout}"
        return done.stdout.strip()

    def facts(self, job: str) -> dict[str, str]:
        """What `scontrol show job` tells of a job (of the first task, if it is an array)."""
        shown = self("scontrol", "--oneliner", "show", "job", job).splitlines()[0]
        return dict(word.split("=", 1) for word in shown.split() if "=" in word)

    def states(self, job: str) -> set[str]:
        """States of a job's tasks: PENDING, RUNNING, COMPLETED, FAILED, …"""
        shown = self("scontrol", "--oneliner", "show", "job", job)
        return {word.removeprefix("JobState=") for word in shown.split() if word.startswith("JobState=")}

    def wait(self, job: str, within: float = 300) -> None:
        """Wait until all tasks of a job have ended; fails with its log if one did not end with 0."""
        self.until(
            lambda: not self.states(job) & {"PENDING", "RUNNING", "COMPLETING", "CONFIGURING"}, within, job
        )
        assert self.states(job) == {"COMPLETED"}, self.logs(job)

    def until(self, there: Callable[[], bool], within: float, job: str) -> None:
        """Wait for something that a job does; fails with its log if it takes longer than `within` seconds."""
        deadline = time.monotonic() + within
        while not there():
            assert time.monotonic() < deadline, f"not within {within} s: {self.logs(job)}"
            assert "FAILED" not in self.states(job), self.logs(job)
            time.sleep(0.5)

    def logs(self, job: str) -> str:
        """The job's facts and the end of what it printed."""
        facts = self.facts(job)
        printed = sorted(Path(facts["StdOut"]).parent.glob(f"slurm-{job}*.log"))
        texts = [f"{path.name}:\n{path.read_text('utf-8', 'replace')[-4000:]}" for path in printed]
        return "\n".join([f"job {job} {facts.get('JobState')} {facts.get('Reason')}", *texts])

    def cut(self, job: str, lead: int) -> None:
        """Lower the time limit of a running job so that its signal, `lead` seconds in advance, is due.

        SLURM counts limits in minutes and looks every 30 seconds. Until then the job's Python processes are
        suspended (SLURM continues them before it sends a signal): a fast machine is cut where a slow one is.
        Returns when the job is queued again, with its former limit.
        """
        facts = self.facts(job)
        hours, minutes, seconds = map(int, facts["RunTime"].split(":"))
        limit = (hours * 3600 + minutes * 60 + seconds + lead + 30) // 60
        for process in self._processes():
            if _is_python_of(process, job):
                process.suspend()
        self("scontrol", "update", f"JobId={job}", f"TimeLimit={limit}")
        self.until(lambda: self.facts(job)["Restarts"] != facts["Restarts"], 120, job)
        self("scontrol", "update", f"JobId={job}", f"TimeLimit={facts['TimeLimit']}")

    def kill_rank(self, job: str, number: int) -> None:
        """Kill the training process of a job on its node of this number (from 0)."""
        for process in self._processes():
            if _is_python_of(process, job) and process.environ().get("RANK") == str(number):
                return process.kill()
        raise AssertionError(f"job {job} has no rank {number}")

    def _processes(self) -> list[psutil.Process]:
        """Everything that runs in the cluster."""
        return psutil.Process(self.daemons).children(recursive=True)

    def lose(self, node: str) -> None:
        """End a node at once, with all that runs on it. SLURM notices after `SlurmdTimeout`."""
        for process in self._processes():
            if process.cmdline()[0] == "unshare" and process.cmdline()[-1].endswith(f"-N {node}"):
                return process.kill()
        raise AssertionError(f"{node} does not run")


@contextmanager
def two_nodes(folder: Path) -> Iterator[Cluster]:
    """Start the cluster; both nodes are idle when the body begins."""
    folder.mkdir(parents=True)
    (folder / "state").mkdir()
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(3)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        ports = [one.getsockname()[1] for one in sockets]
    (folder / "slurm.conf").write_text(CONFIGURATION.format(folder=folder, ports=ports))
    (folder / "gres.conf").write_text(f"Name=gpu File={folder}/gpu[0-7]\n")
    for number in range(8):
        (folder / f"gpu{number}").touch()
    (folder / "munge.key").touch(0o400)
    (folder / "munge.key").write_bytes(secrets.token_bytes(128))
    (folder / "hosts").write_text("127.0.0.1 localhost n1 n2\n")
    (folder / "start").write_text(START.format(folder=folder))
    venv = Path(sys.executable).parent.parent
    variables = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf"), "VENV": str(venv)}
    apart = ["unshare", "--mount", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc"]
    with (folder / "printed").open("w") as printed:
        daemons = subprocess.Popen(
            [*apart, "bash", str(folder / "start")], env=variables, stdin=subprocess.DEVNULL, stdout=printed,
            stderr=subprocess.STDOUT,
        )  # fmt: skip
    cluster = Cluster(folder, variables, daemons.pid)
    try:
        deadline = time.monotonic() + 60
        while not _idle(variables):
            assert time.monotonic() < deadline, (folder / "printed").read_text()
            time.sleep(0.3)
        yield cluster
    finally:
        daemons.kill()  # unshare ignores SIGTERM; what it started dies with it
        daemons.wait()


def _idle(variables: dict[str, str]) -> bool:
    """True if both nodes can take jobs."""
    shown = subprocess.run(
        ["sinfo", "--noheader", "--format=%D %t"], env=variables, capture_output=True, text=True, check=False
    )
    return shown.stdout.split() == ["2", "idle"]


def _is_python_of(process: psutil.Process, job: str) -> bool:
    """True if a process is a Python program that a job started."""
    try:
        return process.name().startswith("python") and process.environ().get("SLURM_JOB_ID") == job
    except psutil.NoSuchProcess:  # or a zombie
        return False
