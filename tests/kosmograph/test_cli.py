"""The command line as people type it: help, options, exit codes, and what is never printed."""

import signal
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from kosmograph.cli import app
from schemas.database import Database
from schemas.ledger import jobs
from tests.pipeline.conftest import Run

DECODING = {"--max-new-tokens", "--min-new-tokens", "--no-repeat-ngram-size", "--constrained"}
WORDS = {"--phrase", "--expression", "--region", "--question", "--plain-question", "--prompt"}
VERIFYING = {"--verify", "--no-mirror", "--absent"}
RECIPES = {"--task"} | WORDS | DECODING | VERIFYING
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
BOUNDS = {"--min-score", "--max-score", "--min-area", "--max-area", "--min-trust", "--max-trust"}
FILTERS = {"--phrase", "--place", "--task", "--model"} | RELATIONS | BOUNDS
OPTIONS = {
    "annotate": RECIPES | MODEL | LISTING | {"--db", "--broker", "--workers", "--device", "--notify", "--quiet"},
    "submit": RECIPES | MODEL | LISTING | {"--db"},
    "try": RECIPES | MODEL | {"--device", "--save", "--allow-http", "--cleanup", "--json"},
    "migrate": {"--db"},
    "dispatch": {"--db", "--broker", "--notify"},
    "plan": RECIPES
    | MODEL
    | {"--device", "--db", "--include", "--exclude", "--all-files", "--root", "--allow-http", "--exact"}
    | {"--sample", "--workers", "--price", "--deadline", "--images", "--json"},
    "worker": MODEL | {"--db", "--broker", "--device", "--gpus", "--allow-http"},
    "status": {"--watch", "--json", "--db"},
    "pause": {"--db"},
    "resume": {"--new-canary", "--db"},
    "cancel": {"--db"},
    "priority": {"--db"},
    "retry": {"--code", "--db"},
    "failures": {"--json", "--db"},
    "wait": {"--timeout", "--quiet", "--db"},
    "prune": {"--older-than", "--annotations", "--vacuum", "--dry-run", "--yes", "--json", "--db"},
    "show": {"--job", "--save", "--allow-http", "--json", "--db"},
    "find": FILTERS | {"--job", "--limit", "--after", "--sheet", "--allow-http", "--json", "--db"},
    "export": FILTERS
    | {"--format", "--out", "--text", "--only-found", "--categories", "--images", "--shard-images", "--shard-bytes"}
    | {"--force", "--allow-http", "--json", "--db"},
    "sql": {"--format", "--timeout", "--limit", "--explain", "--db"},
    "calibrate": {"--truth", "--job", "--plot", "--save", "--json", "--db"},
    "report": {"--out", "--pictures", "--allow-http", "--db"},
    "serve": {"--host", "--port", "--token", "--allow-http", "--db"},
    "evaluate": MODEL | {"--device", "--dataset", "--images", "--entities", "--limit", "--out", "--json"},
    "doctor": MODEL | {"--golden", "--db", "--broker"},
}
Here = Callable[..., Run]
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
    assert all("\n" not in paragraph for paragraph in text.split("\n\n")), "the terminal folds, not the code's lines"


def test_version_is_shown() -> None:
    done = CliRunner().invoke(app, ["--version"])
    assert (done.exit_code, done.output) == (0, f"kosmograph {version('kosmograph')}\n")


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
    ("annotate", "here", "--model", "demo", "--no-mirror"),
    ("annotate", "here", "--model", "demo", "--absent", "a harp"),
    ("annotate", "here", "--model", "demo", "--verify", "--plain-question", "How many?"),
    ("annotate", "here", "--model", "demo", "--verify", "--absent", "<phrase>"),
    ("annotate", "here", "--model", "demo", "--verify", "--absent", "@absent.txt"),
    ("annotate", ".", "--model", "null", "--root", "no-such-folder"),
    ("annotate", ".", "--model", "null", "--root", ""),
    ("annotate", "here", "--model", "null", "--priority", str(2**63)),
    ("submit", ".", "--model", "null", "--root", "s3://bucket/photos"),
    ("submit", "here", "--min-new-tokens", "70"),
    ("priority", "job", "3000000000"),
    ("try", "here.jpg", "--no-repeat-ngram-size", "-1"),
    ("sql", "SELECT 1", "--format", "xml"),
    ("status", "--db", "oracle://host/name"),
    ("wait", "job", "--timeout", "tomorrow"),
    ("prune", "job", "--older-than", "90d"),
    ("prune", "--older-than", "90"),
    ("dispatch",),
    ("dispatch", "--broker", "redis://host", "--notify", "'"),
    ("dispatch", "--broker", "redis://host", "--notify", "https://"),
    ("worker", "--model", "null"),
    ("doctor", "--golden", "snowman.jpg"),
    ("evaluate", "here.json", "--images", "."),
    ("evaluate", "here.json", "--images", ".", "--dataset", "voc"),
    ("evaluate", "here.json", "--images", ".", "--dataset", "flickr30k"),
    ("evaluate", "here.json", "--images", ".", "--dataset", "refcoco", "--entities", "."),
    ("evaluate", "here.json", "--images", ".", "--dataset", "refcoco", "--limit", "0"),
    ("worker", "--model", "null", "--broker", "amqp://host"),
    ("worker", "--model", "null", "--broker", "redis://host", "--gpus", "x"),
    ("worker", "--model", "null", "--broker", "redis://host", "--gpus", "0", "--device", "cpu"),
]


@pytest.mark.parametrize("arguments", WRONG_USAGE, ids=" ".join)
def test_wrong_usage_exits_2_without_a_traceback(cli_here: Here, arguments: tuple[str, ...]) -> None:
    done = cli_here(*arguments)
    assert done.code == 2
    assert "Traceback" not in done.err
    assert done.err.strip()


def test_process_exits_2_at_wrong_usage(cli: Any) -> None:
    for arguments in (WRONG_USAGE[0], WRONG_USAGE[-3]):
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
def test_what_is_missing_is_one_line_and_exits_1(cli_here: Here, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    (tmp_path / "here.jpg").touch()
    done = cli_here(*arguments)
    assert (done.code, done.out) == (1, "")
    assert len(done.err.strip().splitlines()) == 1
    assert done.err.startswith("kosmograph: ")


def test_process_exits_1_with_one_line(cli: Any) -> None:
    done = cli(*MISSING[0])
    assert (done.returncode, done.stdout) == (1, "")
    assert len(done.stderr.strip().splitlines()) == 1


def test_unknown_variable_is_told(cli_here: Here) -> None:
    for command in (("status",), ("dispatch",), ("sql", "SELECT 1")):
        done = cli_here(*command, KOSMOGRAPH_BROKR="redis://here")
        assert done.code == 2
        assert "unknown setting KOSMOGRAPH_BROKR in the environment" in done.err


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


def test_control_characters_in_an_error_are_shown_as_text(cli_here: Here) -> None:
    done = cli_here("annotate", "\x1b[2Jphotos", "--model", "null")
    assert done.code
    assert "\x1b" not in done.err


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_remedy_for_an_image_on_the_web_is_an_option_of_the_command_that_names_it(
    cli_here: Here, database: Database, database_url: str, new_job: Callable[..., jobs.Job]
) -> None:
    """With it the address is looked at, which is a private one: nobody is asked."""
    new_job(database)
    url = "http://127.0.0.1/a.jpg"
    with database.write() as connection:
        connection.exec_driver_sql(f"UPDATE images SET uri = '{url}'")
    show, try_ = ("show", url, "--save", "a.png", "--db", database_url), ("try", url, "--model", "null")
    for command, code in ((show, 1), (try_, 3)):
        off, on = cli_here(*command), cli_here(*command, "--allow-http")
        assert (off.code, on.code) == (code, code)
        assert "reading from the web is off: --allow-http" in off.err
        assert "the server's address is not a public one" in on.err


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_status_and_failures_speak_json(
    cli_here: Here, database: Database, database_url: str, new_job: Callable[..., jobs.Job]
) -> None:
    new_job(database)
    for command in (("status",), ("failures", "job")):
        done = cli_here(*command, "--json", "--db", database_url)
        assert done.code == 0
        assert done.out.startswith("[")
