"""What is printed is safe for a terminal, and whole for a program."""

import csv
import io
import json
import re
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kosmograph.output import say, say_csv, say_json, say_table

Capture = pytest.CaptureFixture[str]
NASTY = "\x1b]0;owned\x07\x9b2J\r\n\u202eevil\ufeff\x7f"


def raw_controls(text: str) -> list[str]:
    return [character for character in text if not character.isprintable() and character != "\n"]


@pytest.mark.parametrize(
    "print_it",
    [
        say,
        lambda text: say_json([{text: text}]),
        lambda text: say_table([text], [[text]]),
    ],
    ids=["line", "json", "table"],
)
def test_no_control_character_reaches_the_terminal(print_it: Any, capsys: Capture) -> None:
    print_it(NASTY)
    assert not raw_controls(capsys.readouterr().out)


def test_numbers_are_whole_on_a_narrow_terminal_while_words_fold(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")
    figures = {"images": 212, "annotated": 0, "reused": 209, "failed": 3, "pending": 0, "images/s": 42.89}
    say_table(["job", "state", *figures], [["photos-brief-e86d16", "finished", *figures.values()]])
    out = re.sub(r"\x1b\[\d*m", "", capsys.readouterr().out)
    assert set(figures) < set(out.split())
    assert "photos-brief-e86d16" not in out
    assert max(map(len, out.splitlines())) <= 80
    monkeypatch.setenv("COLUMNS", "40")
    say_table(["a", "b", "c"], [[10**15, 10**15, 10**15]])
    lines = re.sub(r"\x1b\[\d*m", "", capsys.readouterr().out)
    assert lines.count("0") == 45, "what cannot fit is folded, and not cut"


def test_csv_with_a_carriage_return_keeps_its_rows(capsys: Capture) -> None:
    say_csv(["a", "b"], [["one\rtwo", "x"], ["\r", "y"]])
    out = capsys.readouterr().out
    assert out.startswith("a,b\n")
    assert list(csv.reader(io.StringIO(out, newline="")))[1:] == [["one\rtwo", "x"], ["\r", "y"]]


def test_csv_is_escaped_on_a_terminal_and_exact_in_a_file(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    say_csv(["text"], [[NASTY], [None]])
    assert list(csv.reader(io.StringIO(capsys.readouterr().out, newline="")))[1] == [NASTY]
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    say_csv(["text"], [[NASTY]])
    assert not raw_controls(capsys.readouterr().out)


@given(st.text(), st.text())
def test_json_means_what_it_was_given(name: str, value: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        out = io.StringIO()
        patch.setattr("sys.stdout", out)
        say_json({name: [value]})
    assert json.loads(out.getvalue()) == {name: [value]}
    assert not raw_controls(out.getvalue())


def test_values_of_databases_are_numbers_and_text(capsys: Capture) -> None:
    say_json([Decimal("2"), Decimal("2.5"), b"\x01\xff", None])
    assert json.loads(capsys.readouterr().out) == [2, 2.5, "01ff", None]


def test_table_off_a_terminal_cuts_nothing(capsys: Capture) -> None:
    long = "x" * 5000
    say_table(["a", "b"], [[long, 1], [None, 0.123456789]])
    out = capsys.readouterr().out
    assert long in out
    assert "0.1235" in out


def test_markup_in_values_is_text(capsys: Capture) -> None:
    say_table(["[bold]a"], [["[/red] [link]"]])
    out = capsys.readouterr().out
    assert "[bold]a" in out
    assert "[/red] [link]" in out
