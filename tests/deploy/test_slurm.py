"""The scripts of Slurm, run as Slurm runs them but for sbatch: services with Valkey, and a worker of the array."""

import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kosmograph.redis_server import find_redis_server
from tests.deploy.containers import DEPLOY
from tests.deploy.processes import free_port
from tests.pipeline.conftest import ROOT

Run = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where `kosmograph`, a Valkey and a `scontrol` that writes down what it is asked are on the PATH."""
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "valkey-server").symlink_to(find_redis_server())
    commands = {
        "kosmograph": f'exec {sys.executable} -P -m kosmograph "$@"',
        "scontrol": f'echo "$@" >>{tmp_path}/scontrol.log',
    }
    for name, command in commands.items():
        (tools / name).write_text(f"#!/bin/sh\n{command}\n")
        (tools / name).chmod(0o755)
    return tmp_path


@pytest.fixture
def run(folder: Path) -> Iterator[Run]:
    """Starts a script of Slurm's in a shell of its own group."""
    started: list[subprocess.Popen[str]] = []

    def start(script: str, *arguments: str, **variables: str) -> "subprocess.Popen[str]":
        known = os.environ | {"PATH": f"{folder}/bin:{os.environ['PATH']}", "NIGHT": str(folder / "night")}
        with (folder / f"{script}.log").open("w") as log:
            process = subprocess.Popen(
                ["bash", DEPLOY / "slurm" / script, *arguments],
                cwd=folder, env=known | variables, stdin=subprocess.DEVNULL, stdout=log, stderr=log, text=True,
                start_new_session=True,
            )  # fmt: skip
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_night_on_a_cluster(run: Run, folder: Path, database_url: str, kosmograph: Any, wait_for: Any) -> None:
    """Services on one node, a worker on another; all of it ends by SIGTERM, and with 0."""
    services = run(
        "services.sbatch", KOSMOGRAPH_DB=database_url, SERVICES_HOST="127.0.0.1", SLURM_JOB_ID="1",
        VALKEY_PORT=str(free_port()), KOSMOGRAPH_METRICS_PORT=str(free_port()), KOSMOGRAPH_METRICS_HOST="127.0.0.1",
    )  # fmt: skip
    told = folder / "night" / "services.env"
    wait_for(lambda: told.exists() or services.poll() is not None, 60.0)
    assert told.exists(), (folder / "services.sbatch.log").read_text()
    assert {stat.S_IMODE(path.stat().st_mode) & 0o077 for path in (folder / "night").iterdir()} == {0}
    shown = subprocess.run(["bash", "-c", f". {told}; env -0"], capture_output=True, text=True, check=True).stdout
    shared = dict(line.split("=", 1) for line in shown.split("\0") if line.startswith("KOSMOGRAPH_"))
    assert shared["KOSMOGRAPH_DB"] == database_url
    submitted = kosmograph("submit", str(ROOT / "examples/images/scan.tiff"), "--model", "demo", "--job", "a", **shared)
    assert submitted.code == 0, submitted.err

    worker = run(
        "workers.sbatch", "--device", "cpu", MODEL="demo", SLURM_JOB_ID="7", SLURM_JOB_GPUS="2,3",
        KOSMOGRAPH_METRICS_PORT=str(free_port()), KOSMOGRAPH_METRICS_HOST="127.0.0.1",
    )  # fmt: skip

    def state() -> str:
        assert worker.poll() is None, (folder / "workers.sbatch.log").read_text()
        return str(json.loads(kosmograph.here("status", "a", "--json", **shared).out)[0]["state"])

    wait_for(lambda: state() == "finished", 120.0)
    for process in (worker, services):
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    assert not told.exists()
    assert not (folder / "scontrol.log").exists()


@pytest.mark.parametrize(("code", "asked"), [(75, "requeue 7\n"), (1, "")])
def test_worker_that_lost_its_gpu_is_queued_again_and_one_that_gave_up_is_not(
    run: Run, folder: Path, code: int, asked: str
) -> None:
    (folder / "night").mkdir()
    (folder / "night" / "services.env").write_text("export KOSMOGRAPH_DB=x\n")
    (folder / "bin" / "kosmograph").write_text(
        f'#!/bin/sh\n[ "$*" = "worker --model m --dtype float16" ] && exit {code}\n'
    )
    assert run("workers.sbatch", "--dtype", "float16", MODEL="m", SLURM_JOB_ID="7").wait(30) == code
    log = folder / "scontrol.log"
    assert (log.read_text() if log.exists() else "") == asked


def test_worker_has_all_the_cores_that_its_job_has(run: Run, folder: Path) -> None:
    """A step of Slurm's has one, unless it is told otherwise."""
    (folder / "night").mkdir()
    (folder / "night" / "services.env").write_text("export KOSMOGRAPH_DB=x\n")
    (folder / "bin" / "srun").write_text(f'#!/bin/sh\necho "$@" >{folder}/srun.log\n')
    (folder / "bin" / "srun").chmod(0o755)
    assert run("workers.sbatch", MODEL="m", SLURM_JOB_ID="7", SLURM_CPUS_PER_TASK="8").wait(30) == 0
    options, _, command = (folder / "srun.log").read_text().partition(" kosmograph ")
    assert "--cpus-per-task=8" in options.split()
    assert command == "worker --model m\n"


def test_scripts_say_what_they_lack(run: Run, folder: Path) -> None:
    for script, given, missing in (("services.sbatch", {}, "NIGHT"), ("workers.sbatch", {"NIGHT": "x"}, "MODEL")):
        assert run(script, **{"NIGHT": "", **given}).wait(30) != 0
        assert f"{missing}: set {missing} to" in (folder / f"{script}.log").read_text()
