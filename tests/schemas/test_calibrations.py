"""Calibrations as they are stored, and as files."""

import json
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from schemas.calibration import Calibration, Report, calibrations_json, read_calibrations
from schemas.database import Database
from schemas.errors import SetupError
from schemas.ledger.calibrations import add_calibrations, put_calibrations
from schemas.trust import trust

REPORT = Report(
    boxes=100,
    right=50,
    scored=100,
    folds=5,
    score_auroc=None,
    evidence_auroc=0.9,
    trust_auroc=0.9,
    evidence_ece=0.1,
    trust_ece=0.01,
    evidence_reliability=((0.5, 0.5, 100),),
    trust_reliability=((0.5, 0.5, 100),),
)


def calibration(**changes: Any) -> Calibration:
    values: dict[str, Any] = {"model": "null", "revision": "r", "task": "brief", "verify": "", "truth": "one"}
    return Calibration(**(values | {"report": REPORT, "points": ((0, 0.25), (0.5, 0.5), (1, 0.75))} | changes))


def rows(database: Database, query: str) -> list[tuple[Any, ...]]:
    with database.read() as connection:
        return [tuple(row) for row in connection.execute(text(query))]


KNOTS = "SELECT task, k.evidence, trust, slope FROM calibration_knots k JOIN calibrations c ON c.id = calibration_id"


def test_knots_say_how_the_map_goes_on(database: Database) -> None:
    put_calibrations(database, [calibration()])
    wanted = [("brief", 0, 0.25, 0.5), ("brief", 0.5, 0.5, 0.5), ("brief", 1, 0.75, 0)]
    assert rows(database, f"{KNOTS} ORDER BY k.evidence") == wanted


def test_newer_one_replaces_its_own_kind_alone(database: Database) -> None:
    put_calibrations(database, [calibration(), calibration(task="phrase")])
    put_calibrations(database, [calibration(truth="two", points=((0, 0.5), (1, 0.5)))])
    assert rows(database, "SELECT task, truth FROM calibrations ORDER BY task") == [("brief", "two"), ("phrase", "one")]
    assert len(rows(database, KNOTS)) == 2 + 3


def test_shipped_one_is_taken_only_where_there_is_none(database: Database) -> None:
    mine, other = calibration(), calibration(verify="phrases-1")
    put_calibrations(database, [mine])
    assert add_calibrations(database, [calibration(truth="shipped"), other]) == [other]
    assert rows(database, "SELECT verify, truth FROM calibrations ORDER BY verify") == [
        ("", "one"),
        ("phrases-1", "one"),
    ]
    assert add_calibrations(database, [other]) == []
    assert len(rows(database, KNOTS)) == 6


@pytest.mark.parametrize("store", [put_calibrations, add_calibrations])
def test_trust_of_a_box_is_found_in_the_index_of_knots(database: Database, store: Any) -> None:
    """PostgreSQL, which knows nothing of so few rows by itself, would read and sort them for each box."""
    points = tuple((step / 48, step / 48) for step in range(49))
    store(database, [calibration(points=points), calibration(task="phrase", points=points)])
    explain = "EXPLAIN QUERY PLAN" if database.is_sqlite else "EXPLAIN"
    plan = str(rows(database, f"{explain} SELECT {trust('b', 'r')} FROM boxes b, recipes r"))
    assert "SEARCH knot USING PRIMARY KEY" in plan or "Index Scan Backward using pk_calibration_knots" in plan
    assert "Sort" not in plan
    assert "TEMP B-TREE" not in plan


def test_nothing_is_stored_where_one_of_them_fails(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    put_calibrations(database, [calibration()])
    broken = calibration(task="phrase").model_copy(update={"points": ((0, 0.5), (0, 0.6))})
    with pytest.raises(ZeroDivisionError):
        put_calibrations(database, [calibration(truth="two"), broken])
    assert rows(database, "SELECT task, truth FROM calibrations") == [("brief", "one")]


def test_file_gives_back_what_was_written(tmp_path: Path) -> None:
    some = [calibration(), calibration(task="phrase", verify="mirror-1")]
    path = tmp_path / "calibration.json"
    path.write_text(calibrations_json(some))
    assert list(read_calibrations(path)) == some


BROKEN = {
    "text": "x",
    "another object": '{"maps": []}',
    "a map that begins late": ((0.1, 0.2), (1, 0.5)),
    "a map that falls": ((0, 0.5), (1, 0.2)),
    "a map with two points at one place": ((0, 0.2), (0.5, 0.3), (0.5, 0.4)),
    "a map beyond 1": ((0, 0.2), (1, 1.5)),
    "a map of one point": ((0, 0.2),),
}


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
def test_broken_file_is_told_in_one_line(tmp_path: Path, content: Any) -> None:
    if not isinstance(content, str):
        document = json.loads(calibrations_json([calibration()]))
        document["calibrations"][0]["points"] = content
        content = json.dumps(document)
    path = tmp_path / "calibration.json"
    path.write_text(content)
    with pytest.raises(SetupError) as error:
        read_calibrations(path)
    assert str(error.value).startswith(f"{path} holds no calibration (")
    assert "\n" not in str(error.value)
