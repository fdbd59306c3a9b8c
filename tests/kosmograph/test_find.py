"""`find`: what a person sees, what a script reads, and the sheet of pictures."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from sqlalchemy import text

from catalog.search import Search
from kosmograph.find import find
from kosmograph.show import show_image
from schemas.database import Database
from schemas.errors import ImageFailure
from schemas.ledger import jobs
from schemas.uris import file_uri

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def url(database: Database, database_url: str, new_job: Callable[..., jobs.Job]) -> str:
    """Three pictures of snowmen, of which the first one has failed."""
    new_job(database, images=3, caption="two snowmen")
    return database_url


def found(url: str, **options: Any) -> int:
    search = Search(**{name: options.pop(name) for name in ("text", "phrases", "min_score") if name in options})
    defaults: dict[str, Any] = {"limit": 50, "after": "", "sheet": None, "as_json": False, "allow_http": None}
    return find(search, **(defaults | options), db=url)


def test_table_names_what_was_found_and_where_to_go_on(url: str, capsys: Capture) -> None:
    assert found(url, phrases=("snowman",), limit=1) == 0
    shown = capsys.readouterr()
    assert "s3://job/" in shown.out
    assert "two snowmen" in shown.out
    assert "0.5" in shown.out
    assert "--after" in shown.err
    cursor = shown.err.split("--after ")[1].split()[0]
    assert found(url, phrases=("snowman",), after=cursor) == 0
    again = capsys.readouterr()
    assert again.err == ""
    assert again.out != shown.out


def test_nothing_found_is_said_and_no_error(url: str, capsys: Capture, tmp_path: Path) -> None:
    assert found(url, text="elephant", sheet=tmp_path / "none.png") == 0
    assert capsys.readouterr().out == "nothing found\n"
    assert not (tmp_path / "none.png").exists()


def test_json_has_every_grounding_and_says_which_were_looked_for(url: str, capsys: Capture) -> None:
    assert found(url, text="snowmen", phrases=("snowman",), limit=1, as_json=True) == 0
    document = json.loads(capsys.readouterr().out)
    (image,) = document["found"]
    assert image["caption"] == "An image of two snowmen"
    (grounding,) = image["groundings"]
    assert grounding["found"] is True
    assert grounding["box"] == [0.390625, 0.046875, 0.984375, 0.828125]
    assert document["after"]
    found(url, text="snowmen", as_json=True)
    document = json.loads(capsys.readouterr().out)
    assert (len(document["found"]), document["after"]) == (2, None)
    assert document["found"][0]["groundings"][0]["found"] is False


def lay(database: Database, image: str, path: Path, size: tuple[int, int], colour: tuple[int, int, int]) -> None:
    """Have a picture be what the image was annotated from."""
    Image.new("RGB", size, colour).save(path)
    values = {"uri": file_uri(path), "sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "image": f"%/{image}.jpg"}
    content = "(SELECT content_id FROM images WHERE uri LIKE :image)"
    with database.write() as connection:
        connection.execute(text(f"UPDATE contents SET sha256 = :sha256 WHERE id = {content}"), values)
        connection.execute(text("UPDATE images SET uri = :uri WHERE uri LIKE :image"), values)


BLUE = (10, 120, 200)


def colours_of(path: Path) -> set[tuple[int, int, int]]:
    """Those that fill much of a picture."""
    with Image.open(path) as picture:
        return {colour for count, colour in picture.convert("RGB").getcolors(1 << 24) or [] if count > 1000}  # type: ignore[misc]


def test_sheet_shows_each_picture_and_why_one_is_not_there(
    url: str, database: Database, capsys: Capture, tmp_path: Path
) -> None:
    lay(database, "1", tmp_path / "blue.png", (300, 200), BLUE)
    lay(database, "2", tmp_path / "gone.png", (30, 20), BLUE)
    (tmp_path / "gone.png").unlink()
    assert found(url, phrases=("snowman",), sheet=tmp_path / "sheet.png") == 0
    assert "saved" in capsys.readouterr().out
    assert BLUE in colours_of(tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width > 2 * 480


def test_picture_that_was_replaced_gets_no_boxes_of_the_old_one(
    url: str, database: Database, tmp_path: Path, capsys: Capture
) -> None:
    """Given a picture, when another one lies in its place, then `find` and `show` say so and do not draw on it."""
    path = tmp_path / "picture.png"
    lay(database, "1", path, (300, 200), BLUE)
    options = {"job": None, "allow_http": None, "as_json": False, "db": url}
    assert show_image(str(path), save=tmp_path / "shown.png", **options) == 0
    assert BLUE in colours_of(tmp_path / "shown.png")
    red = (200, 10, 10)
    Image.new("RGB", (300, 200), red).save(path)
    found(url, phrases=("snowman",), sheet=tmp_path / "sheet.png")
    assert not {red, BLUE} & colours_of(tmp_path / "sheet.png")
    with pytest.raises(ImageFailure, match="it has changed since it was annotated"):
        show_image(str(path), save=tmp_path / "again.png", **options)
    assert not (tmp_path / "again.png").exists()


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_captions_that_a_killed_run_left_out_of_the_index_are_found(
    url: str, database: Database, capsys: Capture
) -> None:
    with database.read() as connection:
        assert connection.execute(text("SELECT COUNT(*) FROM annotations")).scalar_one() > 0
        assert connection.execute(text("SELECT COUNT(*) FROM caption_search_docsize")).scalar_one() == 0
    assert found(url, text="snowmen", as_json=True) == 0
    assert len(json.loads(capsys.readouterr().out)["found"]) == 2


def test_command_line_asks_for_what_its_options_say(cli: Any, url: str) -> None:
    done = cli(
        "find", "snowmen -dog", "--phrase", "snowman", "--min-score", "0.4", "--place", "right", "--json", "--db", url
    )
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["found"]) == 2
    done = cli("find", "--phrase", "snowman", "--left-of", "snowman", "--db", url)
    assert (done.returncode, done.stdout) == (0, "nothing found\n")
    for wrong in (("--place", "middle"), ("--phrase", ""), ("--after", "x"), ("--job", "none")):
        done = cli("find", *wrong, "--db", url)
        assert done.returncode == 2, wrong
        assert len(done.stderr.strip().splitlines()) == 1


def test_trust_is_shown_beside_the_score_and_what_is_old_has_none(
    url: str, database: Database, capsys: Capture, cli: Any
) -> None:
    def shown() -> tuple[str, Any, str, Any]:
        found(url, phrases=("snowman",), limit=1)
        table = capsys.readouterr().out
        found(url, phrases=("snowman",), limit=1, as_json=True)
        (grounding,) = json.loads(capsys.readouterr().out)["found"][0]["groundings"]
        options: dict[str, Any] = {"job": None, "save": None, "allow_http": None, "db": url}
        show_image("s3://job/1.jpg", as_json=False, **options)
        said = capsys.readouterr().out
        show_image("s3://job/1.jpg", as_json=True, **options)
        (box,) = json.loads(capsys.readouterr().out)[0]["boxes"]
        return table, (grounding["trust"], grounding["doubts"]), said, (box["trust"], box["doubts"], box["agreement"])

    table, grounding, said, box = shown()
    assert (grounding, box) == ((None, None), (None, None, None))
    assert "trust" not in said
    with database.write() as connection:
        connection.execute(text("UPDATE boxes SET evidence = 0.25, doubts = 'frame,twin', agreement = 0.75"))
    table, grounding, said, box = shown()
    assert (grounding, box) == ((0.25, "frame,twin"), (0.25, "frame,twin", 0.75))
    assert "  score 0.50  trust 0.25  doubts: frame, twin" in said
    assert "0.25" in table
    assert len(json.loads(cli("find", "--min-trust", "0.2", "--json", "--db", url).stdout)["found"]) == 2
    assert cli("find", "--max-trust", "0.2", "--db", url).stdout == "nothing found\n"


def test_answers_to_what_rows_of_a_manifest_asked_are_told_apart(url: str, database: Database, capsys: Capture) -> None:
    with database.write() as connection:
        connection.execute(text("INSERT INTO inputs VALUES ('h', 'a cat')"))
        connection.execute(text("UPDATE annotations SET input = 'h'"))
    show_image("s3://job/1.jpg", job=None, save=None, allow_http=None, as_json=False, db=url)
    assert "job job, brief: a cat, model null" in capsys.readouterr().out
