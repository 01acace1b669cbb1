"""A Slurm of one node in a folder: where no controller answers and we may, one is started for the tests."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

CONF = """ClusterName=one
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={first}
SlurmdPort={second}
SlurmUser=root
AuthType=auth/munge
AuthInfo=cred_expire=5
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
MpiDefault=none
ReturnToService=2
SchedulerParameters=sched_interval=2,bf_interval=2
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""
MUNGE = Path("/run/munge/munge.socket.2")


def why_not() -> str:
    """Why no Slurm can be used here ("" where one can)."""
    if shutil.which("sbatch") is None:
        return "no Slurm: sbatch is not installed"
    if _answers(os.environ):
        return ""
    if os.geteuid() != 0 or not all(map(shutil.which, ("slurmctld", "slurmd", "munged", "runuser"))):
        return "no Slurm controller answers, and starting one needs root, slurmctld, slurmd and munged"
    return ""


@contextlib.contextmanager
def cluster(folder: Path) -> Iterator[Mapping[str, str]]:
    """The variables with which Slurm's commands find a controller; ours is stopped at the end."""
    if _answers(os.environ):
        yield {}
        return
    folder.mkdir()
    (folder / "state").mkdir()
    (folder / "spool").mkdir()
    ports = dict(zip(("first", "second"), _free_ports(2), strict=True))
    conf = folder / "slurm.conf"
    conf.write_text(CONF.format(host=socket.gethostname().partition(".")[0], folder=folder, **ports))
    variables = {"SLURM_CONF": str(conf)}
    started: list[subprocess.Popen[bytes]] = []
    try:
        if not MUNGE.exists() or subprocess.run(["munge", "-n"], capture_output=True, check=False).returncode:
            MUNGE.parent.mkdir(exist_ok=True)
            shutil.chown(MUNGE.parent, "munge", "munge")
            command = ["runuser", "-u", "munge", "--", shutil.which("munged") or "munged", "--force", "-F"]
            started.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
            _until(lambda: subprocess.run(["munge", "-n"], capture_output=True, check=False).returncode == 0)
        for daemon in ("slurmctld", "slurmd"):
            started.append(subprocess.Popen([daemon, "-D"], env={**os.environ, **variables}, stderr=subprocess.DEVNULL))
        _until(lambda: "idle" in say(["sinfo", "-h", "-o", "%t"], variables))
        yield variables
    finally:
        for job in say(["squeue", "-h", "-o", "%A"], variables).split():
            say(["scancel", "--full", "--signal=KILL", job], variables)
        for process in reversed(started):
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=10)


def say(words: list[str], variables: Mapping[str, str]) -> str:
    """What one of Slurm's commands prints."""
    done = subprocess.run(words, env={**os.environ, **variables}, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def _answers(variables: Mapping[str, str]) -> bool:
    done = subprocess.run(["scontrol", "ping"], env=dict(variables), capture_output=True, text=True, check=False)
    return done.returncode == 0 and " UP" in done.stdout.upper()


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def _until(ready: object, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not ready():  # type: ignore[operator]
        if time.monotonic() > end:
            raise RuntimeError("Slurm does not come up")
        time.sleep(0.2)
