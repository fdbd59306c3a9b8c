"""The command line as people type it: help, options, exit codes, and what is never printed."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from kosmograph.cli import app
from schemas.database import Database
from schemas.ledger import jobs

DECODING = {"--max-new-tokens", "--min-new-tokens", "--no-repeat-ngram-size", "--constrained"}
RECIPES = {"--task", "--phrase", "--question", "--prompt"} | DECODING
MODEL = {"--model", "--revision", "--dtype"}
LISTING = {
    "--job",
    "--priority",
    "--limit",
    "--include",
    "--exclude",
    "--all-files",
    "--recheck",
    "--exact",
    "--strict",
    "--root",
    "--allow-http",
}
RELATIONS = {"--left-of", "--right-of", "--above", "--below", "--inside", "--overlaps", "--near"}
BOUNDS = {"--min-score", "--max-score", "--min-area", "--max-area"}
FILTERS = {"--phrase", "--place", "--task", "--model"} | RELATIONS | BOUNDS
OPTIONS = {
    "annotate": RECIPES | MODEL | LISTING | {"--db", "--broker", "--workers", "--device"},
    "submit": RECIPES | MODEL | LISTING | {"--db"},
    "try": RECIPES | MODEL | {"--device", "--save", "--allow-http", "--raw", "--json"},
    "dispatch": {"--db", "--broker"},
    "worker": MODEL | {"--db", "--broker", "--device", "--gpus", "--allow-http"},
    "status": {"--watch", "--json", "--db"},
    "pause": {"--db"},
    "resume": {"--db"},
    "cancel": {"--db"},
    "priority": {"--db"},
    "retry": {"--code", "--db"},
    "failures": {"--json", "--db"},
    "show": {"--job", "--save", "--allow-http", "--json", "--db"},
    "find": FILTERS | {"--job", "--limit", "--after", "--sheet", "--allow-http", "--json", "--db"},
    "export": FILTERS
    | {"--format", "--out", "--text", "--only-found", "--categories", "--images", "--shard-images", "--shard-bytes"}
    | {"--force", "--allow-http", "--json", "--db"},
    "sql": {"--format", "--timeout", "--limit", "--db"},
    "doctor": {"--model", "--revision", "--db", "--broker"},
}
COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]


def test_commands_are_those_of_the_design() -> None:
    assert COMMANDS.keys() == OPTIONS.keys()


@pytest.mark.parametrize("name", OPTIONS)
def test_options_are_those_of_the_design(name: str) -> None:
    shown = [one for one in COMMANDS[name].params if not getattr(one, "hidden", False)]
    options = {option for one in shown for option in one.opts if option.startswith("-")}
    assert options - {"--help", "-h"} == OPTIONS[name]


@pytest.mark.parametrize("name", OPTIONS)
def test_help_of_every_command_ends_in_an_example_of_it(name: str) -> None:
    text = COMMANDS[name].help.strip()
    assert text.splitlines()[-1].startswith(f"Example: kosmograph {name}")
    done = CliRunner().invoke(app, [name, "--help"])
    assert done.exit_code == 0
    assert "Example:" in done.output


@pytest.mark.parametrize("name", OPTIONS)
def test_every_option_has_help(name: str) -> None:
    assert all(one.help for one in COMMANDS[name].params if not getattr(one, "hidden", False) and one.name != "job")


WRONG_USAGE = [
    ("frobnicate",),
    ("annotate",),
    ("annotate", "here", "--limit", "0"),
    ("annotate", "here", "--limit", "many"),
    ("annotate", "here", "--workers", "-1"),
    ("annotate", "here", "--max-new-tokens", "0"),
    ("annotate", ".", "--model", "null", "--root", "no-such-folder"),
    ("annotate", ".", "--model", "null", "--root", ""),
    ("annotate", "here", "--model", "null", "--priority", str(2**63)),
    ("submit", ".", "--model", "null", "--root", "s3://bucket/photos"),
    ("submit", "here", "--min-new-tokens", "70"),
    ("priority", "job", "3000000000"),
    ("try", "here.jpg", "--no-repeat-ngram-size", "-1"),
    ("sql", "SELECT 1", "--format", "xml"),
    ("status", "--db", "oracle://host/name"),
    ("dispatch",),
    ("worker", "--model", "null"),
    ("worker", "--model", "null", "--broker", "amqp://host"),
    ("worker", "--model", "null", "--broker", "redis://host", "--gpus", "x"),
    ("worker", "--model", "null", "--broker", "redis://host", "--gpus", "0", "--device", "cpu"),
]


@pytest.mark.parametrize("arguments", WRONG_USAGE, ids=" ".join)
def test_wrong_usage_exits_2_without_a_traceback(cli: Any, arguments: tuple[str, ...]) -> None:
    done = cli(*arguments)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert done.stderr.strip()


MISSING = [
    ("annotate", "no-such-folder", "--model", "null"),
    ("status",),
    ("sql", "SELECT 1"),
    ("pause", "job"),
    ("annotate", "here.jpg", "--model", "null", "--db", "sqlite:///no/such/folder/k.db"),
]


@pytest.mark.parametrize("arguments", MISSING, ids=" ".join)
def test_what_is_missing_is_one_line_and_exits_1(cli: Any, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    (tmp_path / "here.jpg").touch()
    done = cli(*arguments)
    assert (done.returncode, done.stdout) == (1, "")
    assert len(done.stderr.strip().splitlines()) == 1
    assert done.stderr.startswith("kosmograph: ")


def test_unknown_variable_is_told(cli: Any) -> None:
    for command in (("status",), ("dispatch",), ("sql", "SELECT 1")):
        done = cli(*command, KOSMOGRAPH_BROKR="redis://here")
        assert done.returncode == 2
        assert "unknown setting KOSMOGRAPH_BROKR in the environment" in done.stderr


def test_one_failure_exits_3_and_the_rest_is_done(cli: Any, tmp_path: Path) -> None:
    from PIL import Image

    Image.new("RGB", (32, 32)).save(tmp_path / "good.png")
    (tmp_path / "bad.jpg").write_bytes(b"no picture")
    done = cli("annotate", "good.png", "bad.jpg", "--model", "null", "--job", "mine")
    assert done.returncode == 3, done.stderr
    assert "2 images, 1 annotated, 0 reused, 1 failed" in done.stdout
    assert cli("failures", "mine").returncode == 0


def test_ctrl_c_ends_an_endless_query_with_130(tmp_path: Path, sqlite_template: Path) -> None:
    (tmp_path / "kosmograph.db").write_bytes(sqlite_template.read_bytes())
    endless = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT SUM(x) FROM n"
    heed = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"  # a job in the background has it off
    )
    code = f"{heed}; print('here', flush=True); from kosmograph.__main__ import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, "sql", endless], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout
    assert process.stdout.readline() == b"here\n"
    while process.poll() is None:  # the first one may come before anybody listens
        process.send_signal(signal.SIGINT)
        try:
            process.wait(0.7)
        except subprocess.TimeoutExpired:
            continue
    process.communicate()
    assert process.returncode in (130, -signal.SIGINT)


SECRETS = {
    "postgresql://ann:hunter2@127.0.0.1:1/name?sslpassword=hunter2&application_name=hunter2",
    "postgresql://ann:hunter2@127.0.0.1:notaport/name",
    "mysql://ann:hunter2@127.0.0.1/name",
    "hunter2",
}
BROKERS = {
    "redis://:hunter2@127.0.0.1:1/0",
    "redis://ann:hunter2@127.0.0.1:notaport/0",
    "redis://127.0.0.1/0?password=hunter2",
    "redis://:hunter2@127.0.0.1:1/hunter2",
    "amqp://ann:hunter2@127.0.0.1:1/0",
    "hunter2",
}
WITH_DB = [("status",), ("sql", "SELECT 1"), ("pause", "job"), ("annotate", ".", "--model", "null"), ("doctor",)]


@pytest.mark.parametrize("db", sorted(SECRETS))
def test_password_of_the_database_is_never_printed(cli: Any, tmp_path: Path, db: str) -> None:
    (tmp_path / "here.jpg").touch()
    for command in WITH_DB if ":1/" in db else WITH_DB[:2]:
        done = cli(*command, KOSMOGRAPH_DB=db)
        assert done.returncode in (1, 2)
        assert "hunter2" not in done.stdout + done.stderr


@pytest.mark.parametrize("broker", sorted(BROKERS))
def test_password_of_the_broker_is_never_printed(tmp_path: Path, broker: str, wait_for: Callable[..., Any]) -> None:
    commands = [("dispatch",), ("worker", "--model", "null"), ("doctor",)]
    for command in commands if ":1/0" in broker else commands[:1]:
        log = tmp_path / f"{command[0]}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "kosmograph", *command],
                cwd=tmp_path,
                env=os.environ | {"KOSMOGRAPH_BROKER": broker},
                stdout=output,
                stderr=output,
            )
        try:
            wait_for(lambda: process.poll() is not None or re.search("ready|onnect", log.read_text()))  # noqa: B023
        finally:
            process.terminate()
            process.wait(20)
        assert log.read_text()
        assert "hunter2" not in log.read_text()
        assert "Traceback" not in log.read_text()


def test_control_characters_in_an_error_are_shown_as_text(cli: Any) -> None:
    done = cli("annotate", "\x1b[2Jphotos", "--model", "null")
    assert "\x1b" not in done.stderr


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_remedy_for_an_image_on_the_web_is_an_option_of_the_command_that_names_it(
    cli: Any, database: Database, database_url: str, new_job: Callable[..., jobs.Job]
) -> None:
    """With it the address is looked at, which is a private one: nobody is asked."""
    new_job(database)
    url = "http://127.0.0.1/a.jpg"
    with database.write() as connection:
        connection.exec_driver_sql(f"UPDATE images SET uri = '{url}'")
    show, try_ = ("show", url, "--save", "a.png", "--db", database_url), ("try", url, "--model", "null")
    for command, code in ((show, 1), (try_, 3)):
        off, on = cli(*command), cli(*command, "--allow-http")
        assert (off.returncode, on.returncode) == (code, code)
        assert "reading from the web is off: --allow-http" in off.stderr
        assert "the server's address is not a public one" in on.stderr


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_status_and_failures_speak_json(
    cli: Any, database: Database, database_url: str, new_job: Callable[..., jobs.Job]
) -> None:
    new_job(database)
    for command in (("status",), ("failures", "job")):
        done = cli(*command, "--json", "--db", database_url)
        assert done.returncode == 0
        assert done.stdout.startswith("[")
