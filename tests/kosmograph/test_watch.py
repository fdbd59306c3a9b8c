"""`status --watch`: the screen, the lines and the documents."""

import io
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from catalog.activity import Activity
from kosmograph import control, watch
from kosmograph.screen import Seen, frame, share, words_of
from schemas.database import Database
from schemas.items import Item
from schemas.ledger import dispatch, jobs, listing, work
from schemas.recipes import Recipe

RECIPE = Recipe(task="brief", prompt="p", model="null", revision="r", dtype="float32")
SIZES = ((80, 24), (120, 40), (40, 8), (20, 4))


def job(name: str, **more: Any) -> dict[str, Any]:
    row = {"id": 1, "job": name, "state": "running", "images": 2000, "recipes": 2, "annotated": 700, "reused": 60}
    row |= {"failed": 8, "pending": 3232, "images_per_s": 12.5, "reason": None, "priority": 0, "listed": True}
    return row | more


def worker(name: str, **more: Any) -> dict[str, Any]:
    row = {"worker": name, "job": "photos", "chunks": 3, "images": 192, "since_s": 75.0, "lease_s": 31.0}
    return row | more


def shown(seen: Seen, width: int, height: int) -> list[str]:
    """The lines as a terminal of this size has them."""
    console = Console(file=io.StringIO(), width=width, height=height, force_terminal=True, highlight=False)
    console.print(frame(seen, width, height))
    return re.sub(r"\x1b\[[0-9;]*m", "", console.file.getvalue()).splitlines()  # type: ignore[attr-defined]


def full(jobs_: int = 1, workers: int = 2) -> Seen:
    now = Activity(
        jobs=[
            job("photos"),
            *(job(f"another-{number}", state="paused", reason="by hand") for number in range(jobs_ - 1)),
        ],
        jobs_in_all=jobs_,
        chunks={"pending": 100_000, "queued": 256, "running": 6},
        workers=[worker(f"gpu-box-{number}:cuda:0:3f9c1a") for number in range(workers - 1)]
        + [worker("spot:cuda:1:aaaaaa", lease_s=-3.0)],
        failures=[{"job": "photos", "code": "truncated", "failures": 8}],
    )
    return Seen("sqlite:///night.db", now, "23:59:58", {"photos": 16.0})


def test_screen_tells_jobs_chunks_workers_and_failures() -> None:
    head, chunks, _, _, photos, _, _, first, second, _, _, failed = shown(full(), 80, 24)
    assert head.split() == ["kosmograph", "status", "sqlite:///night.db", "23:59:58", "Ctrl-C", "ends"]
    assert chunks == "chunks: 100,000+ pending, 256 queued, 6 running; 2 workers at work"
    assert photos.split() == ["photos", "running", "━━············", "384", "of", "2000", "16.0", "12.5", "2", "min"]
    assert first == "spot:cuda:1:aaaaaa       photos       3     192  75 s  expired"
    assert second == "gpu-box-0:cuda:0:3f9c1a  photos       3     192  75 s     31 s"
    assert failed.split() == ["photos", "truncated", "8"]


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_screen_never_overflows(width: int, height: int) -> None:
    seen = full(40, 90)
    assert seen.now
    seen.now.jobs[0]["job"] = "\x1b[2J\x1b]0;owned\x07 名前 " + "x" * 300
    seen.now.jobs[1]["reason"] = "[/red] \x1b[31m" + "why " * 100
    lines = shown(seen, width, height)
    assert len(lines) <= height - 1
    assert all(map(str.isprintable, lines))
    assert max(len(line) + line.count("名") + line.count("前") for line in lines) <= width
    if height >= 24:
        assert sum(bool(re.fullmatch(r"… and \d+ more", line)) for line in lines) == 2


def test_screen_without_an_answer_says_so_and_keeps_what_it_saw() -> None:
    seen = full()
    seen.away, seen.away_s = "postgresql://night does not answer: connection refused", 125.0
    lines = shown(seen, 100, 24)
    assert lines[1] == "no answer for 2 min, asking again: postgresql://night does not answer: connection refused"
    assert any(line.startswith("photos") for line in lines)


@pytest.mark.parametrize(
    ("wanted", "room", "given"),
    [([1, 9, 2], 20, [1, 9, 2]), ([1, 9, 2], 6, [1, 3, 2]), ([40, 40, 0], 9, [5, 4, 0]), ([3], -4, [0])],
)
def test_room_is_shared_fairly(wanted: list[int], room: int, given: list[int]) -> None:
    assert share(wanted, room) == given


def test_words_say_what_is_left_at_the_rate_of_now() -> None:
    assert words_of(job("photos"), 16.0) == "photos: running, 384 of 2000 images, 8 failed, 16.0/s, 2 min left"
    assert words_of(job("p", listed=False, failed=0), 0.0) == "p: running, 380 of 2000+ images, 12.5/s"
    assert words_of(job("p", state="paused", reason="by hand"), 0.0).endswith("8 failed, by hand")


def running(database: Database, name: str = "night") -> jobs.Job:
    """A job with a chunk in work and one that waits."""
    made = jobs.open_job(database, name, [RECIPE], listing="{}")
    items = [Item(f"s3://{name}/{number}.jpg", "v") for number in range(4)]
    listing.register(database, made, items, cursor=None, chunk_size=2)
    listing.finish_listing(database, made)
    first, *_ = dispatch.take_pending(database, made.queue, "here", 1, made.id)
    work.claim_chunk(database, first.chunk_id, first.fence, worker="gpu-box", lease_s=60)
    return made


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "EVERY_S", 0.01)


def test_lines_tell_each_change_and_end_with_the_last_job(
    database: Database, database_url: str, at_once: None, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = running(database)
    look, looks = watch.Looks.look, 0

    def acting(self: watch.Looks) -> bool:
        nonlocal looks
        looks += 1
        if looks == 5:
            jobs.pause_job(database, made.id, "\x1b[2J by hand")
        return look(self)

    monkeypatch.setattr(watch.Looks, "look", acting)
    assert control.show_status(None, watch=True, as_json=False, db=database_url) == 0
    assert capsys.readouterr().out.splitlines()[1:] == [
        "night: running, 0 of 4 images",
        r"night: paused, 0 of 4 images, \x1b[2J by hand",
    ]


def test_documents_are_those_of_status_look_by_look(
    database: Database, database_url: str, at_once: None, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = running(database)
    control.show_status(None, watch=False, as_json=True, db=database_url)
    (once,) = json.loads(capsys.readouterr().out)
    ask, looks = watch.Place.ask, 0

    def acting(self: watch.Place, question: Any) -> Any:
        nonlocal looks
        looks += 1
        if looks == 2:
            jobs.cancel_job(database, made.id)
        return ask(self, question)

    monkeypatch.setattr(watch.Place, "ask", acting)
    assert control.show_status("night", watch=True, as_json=True, db=database_url) == 0
    first, second = capsys.readouterr().out.strip().removesuffix("]").removeprefix("[").split("]\n[")
    assert json.loads(first).keys() == once.keys()
    assert json.loads(second)["state"] == "cancelled"


def test_database_that_is_away_for_a_while_is_waited_for(
    tmp_path: Path, sqlite_template: Path, at_once: None, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, hidden = tmp_path / "night.db", tmp_path / "hidden.db"
    path.write_bytes(sqlite_template.read_bytes())
    database = Database(f"sqlite:///{path}")
    made = running(database)
    look, looks, away = watch.Looks.look, 0, []

    def acting(self: watch.Looks) -> bool:
        nonlocal looks
        looks += 1
        if looks == 2:
            self._place.close()  # as a server that ends its sessions
            path.rename(hidden)
        if looks == 4:
            hidden.rename(path)
            jobs.cancel_job(database, made.id)
        goes_on = look(self)
        away.append(bool(self.seen.away))
        return goes_on

    monkeypatch.setattr(watch.Looks, "look", acting)
    assert control.show_status(None, watch=True, as_json=False, db=f"sqlite:///{path}") == 0
    database.close()
    assert away == [False, True, True, False]
    out = capsys.readouterr().out
    assert "waiting for the database: there is no database at" in out
    assert "night: cancelled" in out


@pytest.mark.parametrize(("width", "height"), [(80, 24), (120, 40)])
def test_ctrl_c_leaves_the_terminal_tidy(
    width: int, height: int, database: Database, database_url: str, wait_for: Callable[..., Any]
) -> None:
    running(database, "night-" + "x" * 200)
    ours, theirs = pty.openpty()
    command = [sys.executable, "-P", "-m", "kosmograph", "status", "--watch", "--db", database_url]
    size = {"COLUMNS": str(width), "LINES": str(height), "TERM": "xterm"}
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=os.environ | size)
    os.close(theirs)
    said = bytearray()

    def has_said(what: bytes) -> bool:
        if select.select([ours], [], [], 0.1)[0]:
            try:
                said.extend(os.read(ours, 65_536))
            except OSError:  # its end of the terminal is closed
                return True
        return what in said

    wait_for(lambda: has_said(b"gpu-box"))
    process.send_signal(signal.SIGINT)
    wait_for(lambda: has_said(b"\x1b[?1049l") and process.poll() is not None)
    has_said(b"never")
    os.close(ours)
    assert process.returncode == 130
    text = said.decode()
    assert text.count("\x1b[?1049h") == text.count("\x1b[?1049l") == 1
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")
    last = text.rpartition("\x1b[?1049l")[2]
    assert "gpu-box" in last
    assert "0 of 4" in last
    assert len(last.splitlines()) < height
    assert "Traceback" not in text
