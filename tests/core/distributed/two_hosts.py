"""Two hosts on this machine, `worker-1` and `worker-2`, joined by a cable that can be cut.

    with two_hosts(folder) as (first, second):
        process = first.start(["python", "-m", "core.launch", "--hostfile", "hosts", …])
        second.link(up=False)

Each has a network, process numbers, a name and an /etc/hosts of its own (namespaces(7)), and an sshd; files
are those of this machine. Nothing outlives the block. Needs root, and Debian's openssh-server and iproute2.
"""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import psutil

PROGRAMS = ("unshare", "nsenter", "ip", "ssh", "ssh-keygen", "sshd")
START = """\
hostname {name}
mount --bind {folder}/hosts /etc/hosts
mount -t tmpfs tmpfs /run && mkdir /run/sshd
mount -t tmpfs tmpfs /etc/ssh/ssh_config.d && cp {folder}/ssh.conf /etc/ssh/ssh_config.d
exec $(command -v sshd) -D -e -f {folder}/sshd.conf
"""
SSHD = """\
HostKey {folder}/key
AuthorizedKeysFile {folder}/key.pub
StrictModes no
PermitRootLogin yes
UsePAM no
"""
SSH = """\
IdentityFile {folder}/key
StrictHostKeyChecking no
UserKnownHostsFile /dev/null
LogLevel ERROR
"""


def missing() -> str:
    """What is not here for two such hosts; empty if all is."""
    absent = [name for name in PROGRAMS if shutil.which(name) is None]
    if absent:
        return f"{', '.join(absent)} not found: apt-get install openssh-server iproute2"
    return "" if os.geteuid() == 0 else "only root can make network namespaces"


@dataclass(frozen=True)
class Host:
    """One of them."""

    name: str
    pid: int
    """Its first process, as this machine counts."""

    def __call__(self, *words: str) -> None:
        """Run a command there."""
        subprocess.run([*self._inside(), *words], check=True)

    def start(self, command: list[str], output: IO[str], **variables: str) -> subprocess.Popen[str]:
        """Start a command there, in this folder."""
        here = [*self._inside(), f"--wd={Path.cwd()}", *command]
        return subprocess.Popen(
            here, stdout=output, stderr=output, text=True, env={**os.environ, **variables}
        )

    def reach(self, name: str) -> None:
        """Wait until it reaches a host by ssh: after a cut the network takes a moment to find its way."""
        deadline = time.monotonic() + 60
        while subprocess.run([*self._inside(), "ssh", name, "true"], check=False).returncode:
            assert time.monotonic() < deadline, f"{self.name} does not reach {name}"
            time.sleep(0.2)

    def link(self, up: bool) -> None:
        """Plug its cable in, or out."""
        self("ip", "link", "set", "eth0", "up" if up else "down")

    def _inside(self) -> list[str]:
        return ["nsenter", f"--target={self.pid}", "--mount", "--uts", "--pid", "--net"]


@contextmanager
def two_hosts(folder: Path) -> Iterator[tuple[Host, Host]]:
    """Start both; they answer when the body begins."""
    folder.mkdir(parents=True)
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / "key"], check=True)
    (folder / "hosts").write_text("127.0.0.1 localhost\n10.77.0.1 worker-1\n10.77.0.2 worker-2\n")
    (folder / "sshd.conf").write_text(SSHD.format(folder=folder))
    (folder / "ssh.conf").write_text(SSH.format(folder=folder))
    apart = ["unshare", "--mount", "--uts", "--pid", "--net", "--fork", "--kill-child", "--mount-proc"]
    started: list[subprocess.Popen[bytes]] = []
    try:
        hosts = []
        for name in ("worker-1", "worker-2"):
            (folder / name).write_text(START.format(name=name, folder=folder))
            with (folder / f"{name}.log").open("w") as log:
                started.append(subprocess.Popen([*apart, "sh", "-e", folder / name], stdout=log, stderr=log))
            hosts.append(Host(name, _first_process(started[-1].pid)))
        first, second = hosts
        cable = ["ip", "link", "add", "name", "eth0", "netns", str(first.pid), "type", "veth"]
        subprocess.run([*cable, "peer", "name", "eth0", "netns", str(second.pid)], check=True)
        for number, host in enumerate(hosts, 1):
            host("ip", "link", "set", "lo", "up")
            host("ip", "address", "add", f"10.77.0.{number}/24", "dev", "eth0")
            host.link(up=True)
        for host in hosts:
            first.reach(host.name)
        yield first, second
    finally:
        for process in started:
            process.kill()  # unshare ignores SIGTERM; what it started dies with it
            process.wait()


def _first_process(unshare: int) -> int:
    """The process that `unshare` started, once it is the host's shell."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        for child in psutil.Process(unshare).children():
            if child.name() in ("sh", "dash", "sshd"):
                return child.pid
        time.sleep(0.05)
    raise AssertionError("no process")
