"""status, pause, resume, cancel, retry, failures, on both databases."""

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import text

from kosmograph import control
from schemas.database import Database
from schemas.errors import SetupError, UsageError
from schemas.items import Item
from schemas.ledger import dispatch, jobs, listing, work
from schemas.recipes import Recipe

Capture = pytest.CaptureFixture[str]


def test_status_of_an_empty_database_says_what_makes_a_job(database_url: str, capsys: Capture) -> None:
    assert control.show_status(None, watch=False, as_json=False, db=database_url) == 0
    assert capsys.readouterr().out == "no jobs yet; kosmograph annotate FOLDER makes one\n"


def test_status_shows_every_job_or_one(
    database: Database, database_url: str, new_job: Callable[..., jobs.Job], capsys: Capture
) -> None:
    new_job(database, "first", 3)
    new_job(database, "second", 2)
    control.show_status(None, watch=False, as_json=True, db=database_url)
    rows = json.loads(capsys.readouterr().out)
    assert [(row["job"], row["images"], row["annotated"], row["failed"]) for row in rows] == [
        ("first", 3, 2, 1),
        ("second", 2, 1, 1),
    ]
    control.show_status("second", watch=False, as_json=False, db=database_url)
    out = capsys.readouterr().out
    assert "second" in out
    assert "first" not in out


def test_watch_ends_when_no_job_runs_any_more(
    database: Database, database_url: str, new_job: Callable[..., jobs.Job], capsys: Capture
) -> None:
    new_job(database)
    assert control.show_status(None, watch=True, as_json=False, db=database_url) == 0


def test_paused_job_tells_its_reason_without_control_characters(
    database: Database, database_url: str, new_job: Callable[..., jobs.Job], capsys: Capture
) -> None:
    job = new_job(database)
    jobs.open_job(database, "job", [*_recipes(database, job)], listing="{}")
    jobs.pause_job(database, job.id, "\x1b[2J3 images in a row\nfailed")
    control.show_status(None, watch=False, as_json=False, db=database_url)
    assert r"job is paused: \x1b[2J3 images in a row\nfailed" in capsys.readouterr().out


def _recipes(database: Database, job: jobs.Job) -> list[Any]:
    with database.read() as connection:
        return list(jobs.recipes_of(connection, job.id).values())


def test_job_goes_from_running_to_paused_and_back_and_is_cancelled(
    database: Database, database_url: str, new_job: Callable[..., jobs.Job], capsys: Capture
) -> None:
    job = new_job(database)
    jobs.open_job(database, "job", _recipes(database, job), listing="{}")
    state = lambda: jobs.get_job(database, job.id).state  # noqa: E731
    for act, expected in ((control.pause, "paused"), (control.resume, "running"), (control.cancel, "cancelled")):
        assert act("job", database_url) == 0
        assert state() == expected
    for act in (control.pause, control.resume, control.cancel):
        with pytest.raises(SetupError, match="'job' is cancelled; only a"):
            act("job", database_url)


def test_priority_of_a_running_job_is_changed(
    database: Database, database_url: str, new_job: Callable[..., jobs.Job], capsys: Capture
) -> None:
    job = new_job(database)
    with pytest.raises(SetupError, match="finished"):
        control.set_priority("job", 3, database_url)
    jobs.open_job(database, "job", _recipes(database, job), listing="{}")
    assert control.set_priority("job", -3, database_url) == 0
    assert jobs.get_job(database, job.id).priority == -3
    assert "priority -3" in capsys.readouterr().out


def test_status_has_a_column_of_recipes_where_a_job_has_several(
    database: Database, database_url: str, new_job: Callable[..., jobs.Job], capsys: Capture
) -> None:
    new_job(database)
    control.show_status(None, watch=False, as_json=False, db=database_url)
    heading = capsys.readouterr().out.splitlines()[1].split()
    assert heading == ["job", "state", "images", "annotated", "reused", "failed", "pending", "images/s"]
    recipes = [
        Recipe(task=task, prompt="p", model="null", revision="r", dtype="float32") for task in ("brief", "detailed")
    ]
    jobs.open_job(database, "two", recipes, listing="{}")
    control.show_status(None, watch=False, as_json=False, db=database_url)
    assert "recipes" in capsys.readouterr().out.splitlines()[1].split()


def test_job_that_nobody_serves_says_who_is_missing(
    database: Database, database_url: str, new_job: Callable[..., jobs.Job], capsys: Capture
) -> None:
    job = new_job(database)
    jobs.open_job(database, "job", _recipes(database, job), listing="{}")
    listing.register(database, job, [Item("s3://b/new", "v")], cursor=None, chunk_size=1)
    control.show_status(None, watch=False, as_json=False, db=database_url)
    assert "kosmograph dispatch feeds it" in capsys.readouterr().out
    (departure,) = dispatch.take_pending(database, job.queue, "here", 1)
    control.show_status(None, watch=False, as_json=False, db=database_url)
    assert "no worker has any of its 1 queued chunks" in capsys.readouterr().out
    work.claim_chunk(database, departure.chunk_id, departure.fence, worker="w", lease_s=60)
    control.show_status(None, watch=False, as_json=False, db=database_url)
    assert "waits" not in capsys.readouterr().out


def test_retry_puts_failures_back_to_work(
    database: Database, database_url: str, new_job: Callable[..., jobs.Job], capsys: Capture
) -> None:
    job = new_job(database)
    control.retry("job", "timeout", database_url)
    assert capsys.readouterr().out == "job: nothing has failed with timeout\n"
    control.retry("job", "truncated", database_url)
    assert "job: 1 failed outcomes go back to work" in capsys.readouterr().out
    assert jobs.get_job(database, job.id).state == "running"
    with pytest.raises(UsageError, match="unknown code 'nonsense'; codes are not_found"):
        control.retry("job", "nonsense", database_url)


def test_failures_are_listed_with_code_and_message(
    database: Database, database_url: str, new_job: Callable[..., jobs.Job], capsys: Capture
) -> None:
    new_job(database, caption="\x1b]0;owned\x07 cat")
    control.show_failures("job", as_json=False, db=database_url)
    out = capsys.readouterr().out
    assert r"\x1b]0;owned\x07 cat is cut off" in out
    assert "1 failed; kosmograph retry job tries them again" in out
    control.show_failures("job", as_json=True, db=database_url)
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["uri"], row["code"], row["tries"]) == ("s3://job/0.jpg", "truncated", 1)


def test_failures_say_what_was_asked_of_an_image(
    database: Database, database_url: str, new_job: Callable[..., jobs.Job], capsys: Capture
) -> None:
    new_job(database)
    with database.write() as connection:
        connection.execute(text("INSERT INTO inputs VALUES ('h', :value)"), {"value": f"a cat {'x' * 200}"})
        connection.execute(text("UPDATE outcomes SET input = 'h' WHERE code IS NOT NULL"))
    control.show_failures("job", as_json=False, db=database_url)
    assert "brief: a cat …" in capsys.readouterr().out
    control.show_failures("job", as_json=True, db=database_url)
    assert json.loads(capsys.readouterr().out)[0]["input"].endswith("x" * 200)


@pytest.mark.parametrize("act", [control.pause, control.resume, control.cancel])
def test_unknown_job_is_told_with_those_there_are(
    database: Database, database_url: str, new_job: Callable[..., jobs.Job], act: Callable[..., int]
) -> None:
    new_job(database, "known")
    with pytest.raises(UsageError, match="there is no job 'jbo'; the latest are known"):
        act("jbo", database_url)
    for look in (
        lambda: control.show_failures("jbo", as_json=False, db=database_url),
        lambda: control.show_status("jbo", watch=False, as_json=False, db=database_url),
    ):
        with pytest.raises(UsageError, match="there is no job 'jbo'; the latest are known"):
            look()


def test_table_in_a_narrow_terminal_keeps_every_value(
    database: Database,
    database_url: str,
    new_job: Callable[..., jobs.Job],
    capsys: Capture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    new_job(database)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "60")
    control.show_status(None, watch=False, as_json=False, db=database_url)
    lines = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out).splitlines()
    assert max(map(len, lines)) <= 60
    letters = "".join(line[column] for column in range(60) for line in lines[3:] if column < len(line))
    assert set("job finished") <= set(letters)
