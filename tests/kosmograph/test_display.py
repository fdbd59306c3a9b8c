"""What a person sees while a job runs."""

from dataclasses import replace
from typing import Any

import pytest

from kosmograph import display as module
from kosmograph.display import Display
from kosmograph.output import duration
from schemas.ledger.jobs import Job

JOB = Job(
    id=1,
    name="[/red]\x1b[2Jjob",
    queue="q",
    state="running",
    reason=None,
    priority=0,
    strict=False,
    listing="{}",
    cursor=None,
    listings=0,
    listed_at=None,
    skipped=0,
    recipes=2,
    images=100,
    annotated=0,
    reused=0,
    failed=0,
)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Time, which the test sets."""
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def test_lines_tell_done_failed_rate_and_time_left_now_and_then(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    display = Display()
    with display.showing(JOB.name):
        for second in range(21):
            clock[0] = float(second)
            now = replace(JOB, annotated=second * 4, failed=second)
            display.update(now, listed=second > 5)
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        r"job [/red]\x1b[2Jjob",
        "0 of 200+ starting",
        "50 of 200 10 failed, 5.0/s, 30 s left",
        "100 of 200 20 failed, 5.0/s, 20 s left",
    ]


def test_live_display_survives_any_name(clock: list[float], monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    display = Display()
    with display.showing(JOB.name):
        display.update(JOB, listed=False)
        display.say("[/nothing] \x1b[2J")
    assert "\x1b[2J" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(42, "42 s"), (420, "7 min"), (12_000, "3 h 20 min"), (273_600, "3 days 4 h"), (7_776_000, "90 days")],
)
def test_duration_is_in_words(seconds: float, text: str) -> None:
    assert duration(seconds) == text
