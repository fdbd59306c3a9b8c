"""`prune` as people type it: what it shows, whom it asks, and what is left."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from schemas.database import Database
from schemas.ledger import jobs, pruning
from schemas.locks import job_lock
from tests.pipeline.conftest import Run

Here = Callable[..., Run]
DAY = 86_400


@pytest.fixture
def nights(database: Database, new_job: Any) -> list[jobs.Job]:
    """Two finished jobs, the first of them a hundred days ago."""
    made = [new_job(database, "old", 3), new_job(database, "new", 3)]
    with database.write() as connection:
        ago = "started_at = started_at - :s, finished_at = finished_at - :s"
        connection.execute(text(f"UPDATE jobs SET {ago} WHERE name = 'old'"), {"s": 100 * DAY})
    return made


@pytest.fixture
def prune(cli_here: Here, database: Database) -> Callable[..., Run]:
    url = database.url.render_as_string(hide_password=False)
    return lambda *arguments: cli_here("prune", *arguments, KOSMOGRAPH_DB=url)


def names(database: Database) -> list[str]:
    with database.read() as connection:
        return list(connection.execute(text("SELECT job FROM progress ORDER BY job")).scalars())


def count(database: Database, table: str) -> int:
    with database.read() as connection:
        return int(connection.execute(text(f"SELECT COUNT(*) FROM {table}")).scalar_one())


def test_what_would_go_is_shown_and_stays(
    prune: Callable[..., Run], database: Database, nights: list[jobs.Job]
) -> None:
    run = prune("--older-than", "90d", "--dry-run")
    assert run.code == 0, run.err
    assert "old   finished" in run.out
    assert "100 days ago" in run.out
    assert "1 jobs with 3 outcomes" in run.out
    assert "annotations stay" in run.out
    assert names(database) == ["new", "old"]


def test_without_a_terminal_nothing_goes_unless_yes_is_said(
    prune: Callable[..., Run], database: Database, nights: list[jobs.Job]
) -> None:
    refused = prune("--older-than", "90d")
    assert refused.code == 2
    assert "--yes" in refused.err
    assert names(database) == ["new", "old"]
    run = prune("--older-than", "90d", "--yes")
    assert run.code == 0, run.err
    assert "removed: 1 jobs, 3 outcomes, 1 chunks" in run.out
    assert names(database) == ["new"]
    assert count(database, "annotations") == 4
    assert prune("--older-than", "90d", "--yes").out.startswith("no job that has ended is that old")


def test_annotations_go_on_request_and_the_captions_of_others_stay(
    prune: Callable[..., Run], database: Database, nights: list[jobs.Job]
) -> None:
    run = prune("old", "--annotations", "--yes", "--json")
    assert run.code == 0, run.err
    said = json.loads(run.out)
    assert [job["job"] for job in said["jobs"]] == ["old"]
    assert said["unused_annotations"] == said["removed"]["annotations"] == 2
    assert said["removed"]["images"] == 3
    assert (said["free_bytes"] is None) != database.is_sqlite
    assert (count(database, "captions"), count(database, "groundings"), count(database, "images")) == (2, 2, 3)


def test_jobs_that_run_or_are_unknown_or_at_work_stay(
    prune: Callable[..., Run], cli: Any, database: Database, nights: list[jobs.Job]
) -> None:
    with job_lock(database, "old"):
        run = cli("prune", "old", "--yes", KOSMOGRAPH_DB=database.url.render_as_string(hide_password=False))
    assert (run.returncode, names(database)) == (1, ["new", "old"])
    assert "'old' is at work in another process" in run.stderr
    assert "it stays" in run.stderr
    with database.write() as connection:
        connection.execute(text("UPDATE jobs SET state = 'running'"))
    assert "is running: only what has ended" in prune("old", "--yes").err
    assert prune("no such job", "--yes").code == 2
    assert prune("--yes").code == 2
    assert names(database) == ["new", "old"]


def test_file_of_sqlite_is_made_smaller_on_request(
    prune: Callable[..., Run], database: Database, nights: list[jobs.Job]
) -> None:
    run = prune("--older-than", "0s", "--annotations", "--vacuum", "--yes")
    if database.is_sqlite:
        assert run.code == 0, run.err
        assert pruning.reclaimable_bytes(database) == 0
    else:
        assert run.code == 2
        assert "autovacuum" in run.err


def test_pruning_that_is_interrupted_or_killed_is_continued(
    prune: Callable[..., Run], database: Database, nights: list[jobs.Job], tmp_path: Path
) -> None:
    """Given steps of one row, when it gets SIGINT in the middle, then it ends with 130 and the next one goes on."""
    script = (
        "import sys; from schemas.ledger import pruning\n"
        "pruning.AT_ONCE = 1; pruning.CHUNKS = pruning.CHUNKS.limit(1)\n"
        "pruning.OUTCOMES = pruning.OUTCOMES.offset(0)\n"
        "before = pruning._remove_outcomes\n"
        "def slowly(*a):\n    print('step', flush=True); sys.stdin.readline(); return before(*a)\n"
        "pruning._remove_outcomes = slowly\n"
        "from kosmograph.prune import prune\n"
        "url = sys.argv[1]\n"
        "sys.exit(prune(['old'], older_s=None, annotations=False, vacuum=False, dry_run=False, yes=True,"
        " as_json=False, db=url))"
    )
    url = database.url.render_as_string(hide_password=False)
    process = subprocess.Popen(
        [sys.executable, "-c", script, url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=tmp_path
    )
    assert process.stdin
    assert process.stdout
    while "step" not in process.stdout.readline():
        pass
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate("\n" * 9, timeout=60)
    assert process.returncode == 130
    assert "goes on with what is begun" in out
    assert count(database, "outcomes") > 3
    assert [one.is_marked for one in pruning.ended_jobs(database, names=["old"])] == [True]
    assert prune("--yes").code == 0
    assert names(database) == ["new"]
    assert count(database, "outcomes") == 3
