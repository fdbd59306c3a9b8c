"""What flags ask for becomes recipes, or is refused in one line before anything is looked up."""

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from kosmograph.prompts import Prompts
from kosmograph.requests import Request, find_sources, open_job, recipes_for, roots_of
from schemas.calibration import FILE, Calibration, calibrations_json
from schemas.database import Database
from schemas.errors import UsageError
from schemas.ledger.calibrations import put_calibrations
from schemas.settings import Settings
from tests.schemas.test_calibrations import REPORT
from worker.revision import folder_revision

ROOT = Path(__file__).parents[2]
BOTH = Prompts(tasks=("brief", "detailed"))


def test_decoding_holds_for_all_recipes_and_the_rest_is_the_tasks_own() -> None:
    brief, detailed = recipes_for(Request([], BOTH, "null", decoding={"no_repeat_ngram_size": 3, "constrained": True}))
    assert (brief.max_new_tokens, detailed.max_new_tokens) == (64, 192)
    for recipe in (brief, detailed):
        assert (recipe.no_repeat_ngram_size, recipe.min_new_tokens, recipe.constrained) == (3, 0, True)


def test_most_and_least_are_those_that_were_asked_for() -> None:
    recipes = recipes_for(Request([], BOTH, "null", decoding={"max_new_tokens": 40, "min_new_tokens": 40}))
    assert [(recipe.max_new_tokens, recipe.min_new_tokens) for recipe in recipes] == [(40, 40)] * 2


@pytest.mark.parametrize(
    ("decoding", "words"),
    [
        ({"max_new_tokens": 0}, "--max-new-tokens 0: input should be greater than or equal to 1"),
        ({"max_new_tokens": 1801}, "--max-new-tokens 1801: input should be less than or equal to 1800"),
        ({"min_new_tokens": -1}, "--min-new-tokens -1: "),
        ({"no_repeat_ngram_size": -3}, "--no-repeat-ngram-size -3: "),
        ({"min_new_tokens": 70}, "min_new_tokens 70 is more than max_new_tokens 64 (the task 'brief')"),
        ({"min_new_tokens": 6, "max_new_tokens": 5}, "min_new_tokens 6 is more than max_new_tokens 5"),
    ],
)
def test_decoding_that_cannot_be_is_told_in_one_line_before_the_model_is_looked_for(
    decoding: dict[str, Any], words: str
) -> None:
    with pytest.raises(UsageError) as refusal:
        recipes_for(Request([], BOTH, "/no such model", decoding=decoding))
    assert words in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_files_named_one_by_one_are_looked_at_once_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a shell gives them that was told `photos/*.jpg`."""
    names = [str(tmp_path / f"{number}.jpg") for number in range(100)]
    for name in names:
        Path(name).write_bytes(b"x")
    resolved = []
    realpath = os.path.realpath

    def counted(path: Any, **options: Any) -> Any:
        resolved.append(path)
        return realpath(path, **options)

    monkeypatch.setattr(os.path, "realpath", counted)
    request = Request(names, Prompts(), "null")
    sources = find_sources(request, Settings(db=f"sqlite:///{tmp_path}/kosmograph.db"))
    assert len(sources) == 100
    assert len(resolved) < 3 * len(names)
    assert roots_of(request, sources) == [str(tmp_path)]


def opened(database: Database, folder: Path) -> None:
    """A job of the model in a folder, ready to be listed."""
    request = Request([], Prompts(), str(folder), dtype="float32")
    settings = Settings(db=database.url.render_as_string(hide_password=False))
    open_job(database, "job", request, [], recipes_for(request), settings)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the demo model, without what it may bring."""
    copy = tmp_path / "mine"
    shutil.copytree(ROOT / "worker" / "demo", copy, ignore=shutil.ignore_patterns(FILE))
    return copy


def brought(folder: Path, **changes: str) -> Calibration:
    """A calibration for the model in a folder."""
    named = {"model": folder.name, "revision": folder_revision(folder), "task": "brief", "verify": "", "truth": "t"}
    return Calibration(**{**named, **changes}, report=REPORT, points=((0, 0.25), (1, 0.75)))  # type: ignore[arg-type]


def stored(database: Database) -> set[tuple[str, ...]]:
    with database.read() as connection:
        asked = "SELECT task, verify, truth FROM calibrations WHERE model = 'mine'"
        return {tuple(row) for row in connection.execute(text(asked))}


def test_job_takes_the_calibrations_that_its_model_brings_and_no_others(
    database: Database, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the weights: the folder may have had another name."""
    other = brought(folder, model="before", task="phrase", verify="mirror-1")
    wrong = [brought(folder, revision="r")]
    put_calibrations(database, [brought(folder, truth="mine")])
    (folder / FILE).write_text(calibrations_json([brought(folder), other, *wrong]))
    opened(database, folder)
    assert stored(database) == {("brief", "", "mine"), ("phrase", "mirror-1", "t")}
    assert "is of other weights, and left out" in capsys.readouterr().err
    (folder / FILE).write_text(calibrations_json([other]))
    opened(database, folder)
    assert capsys.readouterr().err == ""


def test_broken_calibration_of_a_model_is_said_and_stops_no_job(
    database: Database, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / FILE).write_text("{")
    opened(database, folder)
    assert stored(database) == set()
    told = capsys.readouterr().err
    assert "holds no calibration" in told
    assert len(told.splitlines()) == 1
