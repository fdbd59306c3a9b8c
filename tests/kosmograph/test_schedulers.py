"""The examples for cron and Airflow: what they would run, run as they would."""

import ast
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

from kosmograph.cli import app
from tests.pipeline.conftest import jpeg

ROOT = Path(__file__).parents[2]
CRONTAB = ROOT / "examples" / "cron" / "kosmograph.crontab"
DAG = ROOT / "examples" / "airflow" / "kosmograph_night.py"
MODEL = "microsoft/kosmos-2-patch14-224"


class Cron:
    """Runs lines of the crontab as cron does: /bin/sh, hardly any variable, and what is printed is mailed."""

    def __init__(self, folder: Path) -> None:
        binaries, (self.photos, self.state) = folder / "bin", (folder / "photos", folder / "state")
        for one in (binaries, self.photos, self.state):
            one.mkdir()
        kosmograph = binaries / "kosmograph"
        kosmograph.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -P -m kosmograph "$@"\n')
        kosmograph.chmod(0o755)
        there = {"/opt/kosmograph/bin": binaries, "/var/lib/kosmograph": self.state, "/srv/photos": self.photos}
        crontab = CRONTAB.read_text().replace(MODEL, "null")
        for path, ours in there.items():
            crontab = crontab.replace(path, str(ours))
        lines = [line for line in crontab.splitlines() if line and not line.startswith("#")]
        self._environment = dict(line.split("=", 1) for line in lines if re.match(r"[A-Z_]+=", line))
        self._environment |= {"HOME": str(folder), "LOGNAME": "kosmograph"}
        self.commands = [line.split(maxsplit=5)[5] for line in lines if not re.match(r"[A-Z_]+=", line)]

    def __call__(self, word: str) -> tuple[int, str]:
        """The exit code of the command that has this word, and the mail."""
        (command,) = (one for one in self.commands if word in one)
        assert "%" not in command, "cron makes a new line of it"
        done = subprocess.run(
            ["/bin/sh", "-c", command],
            cwd="/",
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
        )
        return done.returncode, done.stdout


def test_nights_by_cron_send_mail_only_when_something_failed(tmp_path: Path) -> None:
    cron = Cron(tmp_path)
    assert len(cron.commands) == 4
    (cron.photos / "good.jpg").write_bytes(jpeg(1))
    for word in ("annotate", "report", "prune", "sqlite3", "sqlite3"):
        assert cron(word) == (0, "")
    assert (cron.state / "photos.html").exists()
    assert (cron.state / "backup.db").exists()
    (cron.photos / "bad.jpg").write_bytes(b"no picture")
    code, mail = cron("annotate")
    assert code == 3
    assert "photos: 2 images, 1 annotated, 0 reused, 1 failed" in mail
    assert "kosmograph failures photos" in mail
    assert "starting" not in mail
    assert cron("annotate") == (3, ""), "what yesterday's mail has told of is not told again"
    (cron.photos / "worse.jpg").write_bytes(b"no picture either")
    code, mail = cron("annotate")
    assert code == 3
    assert "3 images, 1 annotated, 0 reused, 2 failed\n  new:       1, of which 1 failed\n" in mail


def bash_commands() -> dict[str, str]:
    """The commands of the DAG's tasks, with something in place of what Airflow fills in."""
    tree = ast.parse(DAG.read_text())
    names = {
        node.targets[0].id: ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    }
    tasks: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "BashOperator":
            given: dict[str | None, Any] = {one.arg: one.value for one in node.keywords}
            written = eval(compile(ast.Expression(given["bash_command"]), str(DAG), "eval"), dict(names))
            tasks[ast.literal_eval(given["task_id"])] = re.sub(r"\{\{.*?\}\}", "2026-11-23", written)
    return tasks


def test_commands_of_the_dag_are_ours() -> None:
    """Airflow is not installed here: the file is read, not run."""
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    tasks = bash_commands()
    assert tasks.keys() == {"submit", "wait", "report"}
    for name, line in tasks.items():
        subprocess.run(["bash", "-n", "-c", line], check=True)
        program, command, *arguments = shlex.split(line.partition("||")[0])
        assert (program, command) == ("kosmograph", name)
        commands[command].make_context(command, arguments)


@pytest.mark.parametrize(("code", "passes"), [(0, True), (3, True), (1, False), (130, False)])
def test_task_that_waits_passes_where_only_some_images_failed(tmp_path: Path, code: int, passes: bool) -> None:
    stub = tmp_path / "kosmograph"
    stub.write_text(f"#!/bin/sh\nexit {code}\n")
    stub.chmod(0o755)
    done = subprocess.run(["bash", "-c", bash_commands()["wait"]], env={"PATH": f"{tmp_path}:/usr/bin:/bin"})
    assert (done.returncode == 0) == passes
