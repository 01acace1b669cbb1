"""Start `fourd train` as a job of Slurm, or of this machine where there is no Slurm, with submitit.

    pip install 'fourd[train]'
    python examples/submit_train.py --gpus 8 --hours 24 -- RECIPE --config paper --data DATA -o RUN_DIR
    python examples/submit_train.py --local --wait -- RECIPE --config tiny --data DATA -o RUN_DIR

What stands after -- is handed to `fourd train`. A job that meets its time limit, or is preempted, saves, is queued
again and goes on where it stopped.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys

import submitit

MAIN = "from fourdface.cli.main import main; main()"


class Training:
    """The job: `fourd train` in one process, or in several under torchrun; submitit stores it and calls it."""

    def __init__(self, arguments: list[str], processes: int) -> None:
        self.arguments, self.processes = arguments, processes

    def __call__(self) -> None:
        """Train to the end; an exit code other than 0 fails the job."""
        launcher = [sys.executable, "-c", MAIN]
        if self.processes > 1:
            torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--max-restarts", "3"]
            launcher = [*torchrun, "--nproc-per-node", str(self.processes), "--no-python", *launcher]
        # without it, processes started again look for the dead ones (pytorch issue 135712)
        environment = {**os.environ, "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
        self.process = subprocess.Popen([*launcher, "train", *self.arguments], env=environment)
        if code := self.process.wait():
            raise RuntimeError(f"fourd train ended with exit code {code}; its words are above")

    def checkpoint(self) -> submitit.helpers.DelayedSubmission:
        """Called by submitit before the job is taken away: save, stop, and be queued again."""
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()
        return submitit.helpers.DelayedSubmission(Training(self.arguments, self.processes))


def main() -> None:
    """Submit one job and say where its log is."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--local", action="store_true", help="a process of this machine, also where there is Slurm")
    parser.add_argument("--wait", action="store_true", help="wait for the end, and fail where the job fails")
    parser.add_argument("--gpus", type=int, default=0, help="GPUs of the node; one process each")
    parser.add_argument("--processes", type=int, default=1, help="processes where there is no GPU")
    parser.add_argument("--cpus", type=int, default=2, help="cores of the job")
    parser.add_argument("--hours", type=float, default=24)
    parser.add_argument("--partition")
    parser.add_argument("--logs", default="logs", help="folder for the job's output")
    parser.add_argument("arguments", nargs="+", metavar="-- RECIPE ...")
    options = parser.parse_args()

    local = options.local or shutil.which("sbatch") is None
    executor = submitit.AutoExecutor(options.logs, cluster="local" if local else "slurm")
    executor.update_parameters(
        name="fourd-train", timeout_min=int(options.hours * 60), cpus_per_task=options.cpus,
        gpus_per_node=options.gpus, slurm_partition=options.partition,
    )  # fmt: skip
    job = executor.submit(Training(options.arguments, max(options.gpus, options.processes)))
    print(f"job {job.job_id}, output in {job.paths.stdout} and {job.paths.stderr}")
    if options.wait:
        job.result()


if __name__ == "__main__":
    main()
