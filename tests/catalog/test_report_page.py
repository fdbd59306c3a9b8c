"""The report's page: whole and alone, hostile names as text, pictures below the job's roots, and in Chromium."""

import base64
import io
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sqlalchemy import text

from catalog.records import Box, Entity, Record
from catalog.report.sample import bytes_for_each, shown
from catalog.report.words import compact, duration
from kosmograph.report import write_report
from schemas.database import Database
from schemas.errors import Code, ImageFailure, PermanentFailure, SetupError, UsageError
from schemas.uris import file_uri
from tests.catalog.conftest import Picture, Shelve, Thing
from tests.catalog.galleries import real_picture

on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
HOSTILE = "</style><script>alert('1')</script>\"'&\n\u202e{{ 7 * 7 }}"
Capture = pytest.CaptureFixture[str]


@pytest.fixture
def job(shelve: Shelve, database: Database, tmp_path: Path) -> None:
    """A job with a picture inside its root, one that is gone, one outside, and a failure; all with hostile words."""
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    things = [Thing(f"a {HOSTILE} cat", [(0.125, 0.25, 0.5, 0.75)]), Thing("a mat", [(0.5, 0.5, 1.0, 1.0)], None)]
    shelve(
        f"job {HOSTILE}",
        real_picture(inside / "good.jpg", things, size=(320, 240)),
        Picture(file_uri(inside / "gone.jpg"), things),
        real_picture(outside / "secret.jpg", things),
        Picture(f"s3://b/{HOSTILE}.jpg", code=Code.TRUNCATED),
        Picture("s3://b/late.jpg", code=Code.TRUNCATED),
    )
    with database.write() as connection:
        connection.execute(text("UPDATE jobs SET roots = :roots"), {"roots": json.dumps([str(inside)])})
        connection.execute(text("UPDATE outcomes SET message = :message WHERE code <> ''"), {"message": HOSTILE})
        connection.execute(text("UPDATE outcomes SET settled_at = 1767275990 + 40 * image_id"))
    assert not outside.is_relative_to(inside)


@pytest.fixture
def page(job: None, database_url: str, tmp_path: Path) -> Path:
    out = tmp_path / "report.html"
    assert write_report(f"job {HOSTILE}", out, pictures=12, allow_http=None, db=database_url) == 0
    return out


def test_hostile_words_are_text(page: Path) -> None:
    html = page.read_text()
    assert html.count("<script") == html.count("alert('1')") == html.count("\u202e") == 0
    assert html.count("</style>") == 1
    assert "{{ 7 * 7 }}" in html
    assert "&lt;script&gt;alert(&#39;1&#39;)" in html
    assert re.search(r"a &lt;/style&gt;[^<]*\\n\\u202e", html)
    assert r"kosmograph retry $&#39;job &lt;/style&gt;" in html
    assert "--code truncated --db " in html


def test_page_loads_nothing_from_elsewhere(page: Path) -> None:
    html = page.read_text()
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', html)
    assert policy
    assert policy[1].startswith("default-src 'none'; img-src data:; style-src 'sha256-")
    assert "unsafe" not in policy[1]
    assert set(re.findall(r'(?:src|href)="([^:"]*[:#])', html)) <= {"data:", "#"}
    assert not re.findall(r"\bstyle=|url\(|@import|\bon\w+=\"", html.replace("&", ""))


def test_pictures_are_below_the_roots_and_what_is_not_shown_is_told(
    job: None, database_url: str, tmp_path: Path, capsys: Capture
) -> None:
    write_report(f"job {HOSTILE}", tmp_path / "report.html", pictures=12, allow_http=None, db=database_url)
    html = (tmp_path / "report.html").read_text()
    assert html.count("<figure>") == 3
    (data,) = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', html)
    drawn = Image.open(io.BytesIO(base64.b64decode(data)))
    assert drawn.size >= (320, 240)
    assert html.count("not shown: ") == 2
    assert "not shown: not_found" in html
    assert "not shown: access_denied: the file lies outside the folders that this job may read" in html
    said = capsys.readouterr()
    assert "5 images, 3 of them shown" in said.out
    assert "2 of the 3 pictures cannot be read" in said.err


def test_picture_that_was_replaced_is_not_shown_with_the_old_boxes(
    shelve: Shelve, database_url: str, tmp_path: Path
) -> None:
    path = tmp_path / "a.jpg"
    shelve("job", real_picture(path, [Thing("a cat")], colour="red"))
    real_picture(path, colour="blue")
    write_report("job", tmp_path / "report.html", pictures=1, allow_http=None, db=database_url)
    html = (tmp_path / "report.html").read_text()
    assert "not shown: not_found: it has changed since it was annotated" in html
    assert "data:image/jpeg" not in html


def test_demo_model_is_named_once_however_many_prompts_it_had(
    shelve: Shelve, database_url: str, tmp_path: Path
) -> None:
    shelve("job", Picture("s3://b/1"), task=["brief", "detailed"], model="demo")
    write_report("job", tmp_path / "report.html", pictures=0, allow_http=None, db=database_url)
    assert (tmp_path / "report.html").read_text().count("Made by the demo model") == 1


def test_page_is_there_whole_or_not_at_all(job: None, database_url: str, tmp_path: Path) -> None:
    def write(out: Path, name: str = f"job {HOSTILE}") -> None:
        write_report(name, out, pictures=0, allow_http=None, db=database_url)

    before = sorted(tmp_path.iterdir())
    with pytest.raises(UsageError, match="there is no job 'nobody'"):
        write(tmp_path / "report.html", "nobody")
    with pytest.raises(UsageError, match=r"there is no folder .*--out FILE.html"):
        write(tmp_path / "nowhere" / "report.html")
    with pytest.raises(UsageError, match="is no file that could be replaced"):
        write(tmp_path)
    with pytest.raises(SetupError, match=r"^the report cannot be written to [^\n]*too long$"):
        write(tmp_path / ("x" * 250))
    assert sorted(tmp_path.iterdir()) == before
    (tmp_path / "report.html").write_text("older")
    write(tmp_path / "report.html")
    assert (tmp_path / "report.html").read_text().endswith("</html>")
    assert len(list(tmp_path.iterdir())) == len(before) + 1


@on_sqlite
def test_missing_jinja_is_told_with_the_remedy(job: None, database_url: str, tmp_path: Path) -> None:
    code = "import sys; sys.modules['jinja2'] = None; from kosmograph.__main__ import main; main()"
    call = [sys.executable, "-c", code, "report", "job", "--out", str(tmp_path / "x.html"), "--db", database_url]
    done = subprocess.run(call, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(r"[^\n]*a report needs jinja2: pip install 'kosmograph\[gallery\]'\n", done.stderr)


def record(caption: str = "", entities: Any = ()) -> Record:
    of_image = ("job", 1, 1, "s3://b/1", "brief", "p", caption, "", "stop", None, 9, 9, "", "JPEG", "null", "r")
    return Record(*of_image, input=None, absent_phrase=None, yes_bias=None, absent_score=None, entities=entities)


def test_many_pictures_together_stay_within_the_page() -> None:
    noise = Image.fromarray(np.random.default_rng(1).integers(0, 256, (900, 1200, 3), dtype=np.uint8))
    one = shown(record(), lambda one: noise, bytes_for_each(100))
    assert 5_000 < len(one.data_uri) <= bytes_for_each(100)
    assert bytes_for_each(100) * 100 < 3_000_000
    assert len(shown(record(), lambda one: noise, bytes_for_each(12)).data_uri) > len(one.data_uri)


def test_picture_that_cannot_be_read_has_its_reason() -> None:
    def read(one: Record) -> Image.Image:
        raise failure

    failure: ImageFailure = PermanentFailure(Code.NOT_FOUND, "no such file")
    assert shown(record(), read, 1000).trouble == "not_found: no such file"


def test_caption_has_the_colours_of_its_boxes() -> None:
    box = Box(0, 0, 1, 1, 1, None, True)
    cat, on, mat = (
        Entity(n, phrase, phrase, phrase, start, start + len(phrase), None, boxes)
        for n, (phrase, start, boxes) in enumerate([("a cat", 0, [box]), ("on", 6, []), ("a mat", 9, [box, box])])
    )
    grey = Image.new("RGB", (9, 9))
    assert shown(record("a cat on a mat.", [cat, on, mat]), lambda one: grey, 1000).parts == [
        ("a cat", 0),
        (" on ", None),
        ("a mat", 2),
        (".", None),
    ]


def test_numbers_are_short_and_right() -> None:
    assert [compact(value) for value in (0, 0.25, 12.345, 999.6, 1290, 25_300, 1_500_000, 2e9)] == [
        "0",
        "0.25",
        "12.3",
        "1000",
        "1,290",
        "25.3 k",
        "1.5 M",
        "2 G",
    ]
    assert [duration(value) for value in (0.04, 59.94, 60, 3599.6, 11_520, 190_000)] == [
        "0.0 s",
        "59.9 s",
        "1 min 0 s",
        "1 h 0 min",
        "3 h 12 min",
        "2 d 4 h",
    ]


@on_sqlite
@pytest.mark.parametrize(("width", "scheme"), [(1200, "light"), (1200, "dark"), (375, "light")])
def test_page_opens_without_a_network(page: Path, chromium: Any, width: int, scheme: str) -> None:
    context = chromium.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme, offline=True)
    tab, said, asked = context.new_page(), [], []
    tab.on("console", lambda message: said.append(message.text))
    tab.on("pageerror", lambda error: said.append(str(error)))
    tab.on("request", lambda request: asked.append(request.url.partition(":")[0]))
    tab.goto(page.as_uri())
    assert said == []
    assert set(asked) <= {"file", "data"}
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    assert tab.evaluate("[...document.images].every(image => image.naturalWidth > 0)")
    light = tab.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)[0]") > 127
    assert light == (scheme == "light")
    assert tab.title().startswith("job </style><script>alert('1')</script>")
    for name in ("Rate over time", "Length in words", "Scores of boxes", "Size of boxes", "Where boxes fall"):
        assert tab.get_by_role("img", name=name).bounding_box()["width"] > 250
    tab.get_by_text("the numbers").first.click()
    assert tab.locator("details[open] table").first.is_visible()
    context.close()


@on_sqlite
def test_page_prints_light_on_paper_and_without_what_is_for_screens(page: Path, chromium: Any) -> None:
    context = chromium.new_context(color_scheme="dark", offline=True)
    tab = context.new_page()
    tab.goto(page.as_uri())
    assert tab.pdf(format="A4").startswith(b"%PDF-")
    tab.emulate_media(media="print", color_scheme="dark")
    assert tab.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert not tab.locator("nav").is_visible()
    context.close()
