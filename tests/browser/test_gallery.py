"""The gallery as people use it, in real Chromium."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Locator, Page, expect
from sqlalchemy import text

from schemas.database import Database
from schemas.errors import Code
from schemas.uris import file_uri
from tests.catalog.conftest import Picture, Shelve, Thing
from tests.catalog.galleries import RealPicture, ids_of, real_picture, set_roots

Browse = Callable[..., Page]
ROOT = Path(__file__).parents[2]
LEFT, RIGHT = (0.1, 0.2, 0.4, 0.8), (0.6, 0.2, 0.9, 0.8)
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}


@pytest.fixture
def archive(shelve: Shelve) -> None:
    """The pictures of examples/images as they might be annotated, each with two phrases."""
    pictures = [
        RealPicture(file_uri(path), [Thing("a dog", [LEFT], 0.8), Thing(f"a {path.stem}", [RIGHT], 0.3)])
        for path in sorted((ROOT / "examples/images").glob("*.jpg"))
    ]
    shelve("animals", *pictures)
    shelve("again", pictures[0], task="detailed", model="demo")


def open_first(page: Page) -> None:
    page.locator("[data-card]").first.click()
    page.wait_for_url("**/images/**")


def is_drawn(picture: Locator) -> None:
    """Waits until it is. Not by `wait_for_function`, which evaluates a string: the gallery's pages forbid that."""
    expect(picture).to_have_js_property("complete", True)
    expect(picture).not_to_have_js_property("naturalWidth", 0)


@pytest.mark.usefixtures("archive")
def test_search_by_words_and_filters_is_in_the_address_and_the_back_button_goes_back(
    browse: Browse, address: str
) -> None:
    page = browse(address)
    every = page.locator("[data-card]").count()
    page.keyboard.press("/")
    page.keyboard.type("postcard")
    page.keyboard.press("Enter")
    page.wait_for_url("**/?q=postcard")
    expect(page.locator("[data-card]")).to_have_count(1)
    page.get_by_text("Filters", exact=True).click()
    page.get_by_label("Shows").fill("dog")
    page.get_by_label("that lies").select_option("left_of")
    page.get_by_label("of what").fill("postcard")
    page.get_by_label("Score, from").fill("0.5")
    page.get_by_role("button", name="Show").click()
    page.wait_for_url("**/?q=postcard&phrase=dog&relation=left_of&partner=postcard&min_score=0.5")
    expect(page.locator("[data-card]")).to_have_count(1)
    page.get_by_role("link", name="left of postcard, remove").click()
    page.wait_for_url("**/?q=postcard&phrase=dog&min_score=0.5")
    for _ in range(3):
        page.go_back()
    expect(page.locator("[data-card]")).to_have_count(every)


def test_scrolling_brings_all_pictures_without_a_jump(
    browse: Browse, address: str, shelve: Shelve, wait_for: Callable[..., Any], tmp_path: Path
) -> None:
    shelve("many", *(real_picture(tmp_path / f"{n}.jpg", [Thing("a dog", [LEFT])], colour=n) for n in range(110)))
    page = browse(address)
    cards = page.locator("[data-card]")
    assert cards.count() == 48
    fifth = cards.nth(5).bounding_box()
    is_drawn(cards.nth(5).locator("img"))
    assert cards.nth(5).bounding_box() == fifth

    def scrolled() -> bool:
        page.evaluate("scrollTo(0, document.body.scrollHeight)")
        return cards.count() == 110

    wait_for(scrolled)
    expect(page.get_by_text("That is all.")).to_be_visible()
    assert len(set(cards.evaluate_all("all => all.map(one => one.href)"))) == 110
    expect(page.locator("[data-status]")).to_have_text("110 pictures")


def test_without_script_a_link_leads_to_more(browse: Browse, address: str, shelve: Shelve) -> None:
    shelve("many", *(Picture(f"s3://many/{n}.jpg", [Thing("a dog", [LEFT])], code=None) for n in range(50)))
    page = browse(f"{address}/jobs", java_script_enabled=False)
    page.route("**/thumbnails/**", lambda route: route.fulfill(body=""))
    page.goto(address)
    page.get_by_role("link", name="More pictures").click()
    assert page.locator("[data-card]").count() == 2


@pytest.mark.usefixtures("archive")
def test_phrase_lights_its_box_and_box_its_phrase(browse: Browse, address: str) -> None:
    page = browse(address)
    open_first(page)
    phrases, boxes, rows = page.locator(".phrase"), page.locator(".box"), page.locator(".phrases tbody tr")
    assert (phrases.count(), boxes.count(), rows.count()) == (2, 2, 2)
    second = page.locator('.box[data-entity="1"]')
    expect(page.locator(".lit")).to_have_count(0)
    phrases.nth(1).hover()
    expect(second).to_have_class(re.compile(r"\blit\b"))
    expect(page.locator('.box[data-entity="0"]')).not_to_have_class(re.compile(r"\blit\b"))
    assert second.evaluate("box => getComputedStyle(box).opacity") == "1"
    page.locator('.box[data-entity="0"]').hover()
    expect(phrases.nth(0)).to_have_class(re.compile(r"\blit\b"))
    expect(phrases.nth(1)).not_to_have_class(re.compile(r"\blit\b"))
    rows.nth(1).hover()
    expect(second).to_have_class(re.compile(r"\blit\b"))
    page.mouse.move(2, 2)
    expect(page.locator(".lit")).to_have_count(0)
    phrases.nth(1).focus()
    expect(second).to_have_class(re.compile(r"\blit\b"))
    second.focus()
    expect(phrases.nth(1)).to_have_class(re.compile(r"\blit\b"))
    expect(page.get_by_role("img", name="a dog, score 0.80, 18% of the picture")).to_have_count(1)


@pytest.mark.usefixtures("archive")
def test_box_lies_where_it_lies_in_the_picture(browse: Browse, address: str) -> None:
    page = browse(address)
    open_first(page)
    picture, box = page.locator(".canvas img"), page.locator('.box[data-entity="1"] .line')
    is_drawn(picture)
    frame, rect = (
        picture.bounding_box(),
        box.evaluate("one => { const r = one.getBoundingClientRect(); return [r.left, r.top, r.right, r.bottom] }"),
    )
    assert frame
    corners = [
        (rect[0] - frame["x"]) / frame["width"],
        (rect[1] - frame["y"]) / frame["height"],
        (rect[2] - frame["x"]) / frame["width"],
        (rect[3] - frame["y"]) / frame["height"],
    ]
    assert corners == pytest.approx(RIGHT, abs=0.01)


@pytest.mark.usefixtures("archive")
def test_keys_move_through_the_search_and_back(browse: Browse, address: str) -> None:
    page = browse(f"{address}/?phrase=dog&job=animals")
    links = page.locator("[data-card]").evaluate_all("all => all.map(one => one.href)")
    page.keyboard.press("j")
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.href") == links[1]
    page.keyboard.press("Enter")
    page.wait_for_url(links[1])
    for key, there in (("j", 2), ("ArrowRight", 3), ("k", 2), ("ArrowLeft", 1), ("ArrowLeft", 0)):
        page.keyboard.press(key)
        page.wait_for_url(links[there])
    page.keyboard.press("b")
    expect(page.locator("[data-boxes]")).to_have_class(re.compile("hidden-boxes"))
    page.keyboard.press("/")
    expect(page.locator("#q")).to_be_focused()
    page.keyboard.type("jk")
    expect(page.locator("#q")).to_have_value("jk")
    page.keyboard.press("Escape")
    page.keyboard.press("Escape")
    page.wait_for_url(re.compile(r"/\?phrase=dog&job=animals#a"))
    assert page.evaluate("document.activeElement.href") == links[0]


@pytest.mark.usefixtures("archive")
def test_deep_link_shows_the_same_again_and_leads_to_the_other_task(browse: Browse, address: str) -> None:
    page = browse(f"{address}/?q=banner")
    open_first(page)
    words = page.locator("h1").inner_text()
    other = browse(page.url)
    assert other.locator("h1").inner_text() == words
    other.locator(".versions a", has_text="detailed").click()
    expect(other.locator(".notice")).to_contain_text("demo model")


@pytest.mark.usefixtures("archive")
def test_phone_has_nothing_beyond_its_width(browse: Browse, address: str, shelve: Shelve) -> None:
    shelve(
        "a-job-with-a-name-that-is-much-longer-than-any-phone-is-wide" * 3,
        Picture("s3://x/" + "y" * 300, code=Code.TIMEOUT),
    )
    page = browse(address, **PHONE)
    failed = page.request.get(f"{address}/jobs").text()
    paths = ["/", "/?phrase=dog&min_score=0.1&job=animals", "/images/1", "/jobs", "/job?name=animals"]
    paths += re.findall(r'href="(/(?:job|failures)\?[^"]+)"', failed)
    for path in paths:
        page.goto(address + path)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, path
    page.goto(f"{address}/images/1")
    frame = page.locator(".canvas").bounding_box()
    assert frame
    assert frame["width"] > 340


@pytest.mark.usefixtures("archive")
def test_dark_mode_is_dark_and_readable(browse: Browse, address: str) -> None:
    colours = {}
    for scheme in ("light", "dark"):
        page = browse(address, color_scheme=scheme)
        colours[scheme] = page.evaluate(
            "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]"
        )
    light, dark = (
        [sum(map(int, re.findall(r"\d+", colour))) for colour in colours[name]] for name in ("light", "dark")
    )
    assert light[0] - light[1] > 600
    assert dark[1] - dark[0] > 550


def test_hostile_name_and_caption_are_shown_as_text(
    browse: Browse, address: str, shelve: Shelve, tmp_path: Path
) -> None:
    name = "<script>document.title='owned'<\u2215script> \"'&\n\u202egpj.jpg"
    phrase = "<img src=x onerror=\"document.title='owned'\">"
    shelve("job", real_picture(tmp_path / name, [Thing(phrase, [LEFT])]))
    page = browse(address)
    seen = name.replace("\n", r"\n").replace("\u202e", r"\u202e")
    expect(page.locator(".meta bdi")).to_have_text(seen)
    open_first(page)
    expect(page.locator("a.phrase")).to_have_text(phrase)
    expect(page.locator(".facts bdi").first).to_have_text(seen)
    assert "owned" not in page.title().replace(phrase, "")
    assert page.evaluate("document.querySelectorAll('main script, main img[src=x]').length") == 0


def test_path_outside_of_the_archive_is_refused(
    browse: Browse, address: str, shelve: Shelve, database: Database, tmp_path: Path
) -> None:
    (tmp_path / "secret").mkdir()
    inside, outside = real_picture(tmp_path / "in" / "a.jpg"), real_picture(tmp_path / "secret" / "b.jpg")
    shelve("job", inside, outside, RealPicture(f"{inside.uri.removesuffix('a.jpg')}../secret/b%2Ejpg"))
    set_roots(database, "job", json.dumps([str(tmp_path / "in")]))
    page = browse(f"{address}/jobs")
    answers = {name: page.request.get(f"{address}/pictures/{image}") for name, image in ids_of(database).items()}
    refused = {"a.jpg": 200, "b.jpg": 403, "b%2Ejpg": 403}
    assert {name: answer.status for name, answer in answers.items()} == refused
    paths = ["/pictures/../../etc/passwd", "/static/../pages.py", "/static/%2e%2e/pages.py", "/static//etc/passwd"]
    assert [raw_status(address, path) for path in [*paths, "/static/gallery.css"]] == [404] * 4 + [200]


def raw_status(address: str, path: str) -> int:
    """The answer to a path as it is: browsers and other clients take `..` out of it."""
    with closing(HTTPConnection(urlsplit(address).netloc)) as connection:
        connection.request("GET", path)
        return connection.getresponse().status


def test_without_the_token_nothing_is_shown_and_with_its_link_all_is(
    chromium: Browser, shelve: Shelve, database_url: str, tmp_path: Path
) -> None:
    """As `kosmograph serve` does when it listens beyond this machine."""
    shelve("job", real_picture(tmp_path / "a.jpg", [Thing("a dog", [LEFT])]))
    serve = [
        sys.executable,
        "-P",
        "-m",
        "kosmograph",
        "serve",
        "--host",
        "0.0.0.0",
        "--port",
        "0",
        "--db",
        database_url,
    ]
    variables = os.environ | {"KOSMOGRAPH_GALLERY_CACHE": str(tmp_path / "cache")}
    with subprocess.Popen(serve, env=variables, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout
            link, _, token = server.stdout.readline().split()[-3].partition("?token=")
            with closing(chromium.new_context()) as context:
                page = context.new_page()
                for path in ("", "images/1", "thumbnails/1"):
                    answer = page.goto(link + path)
                    assert answer
                    assert answer.status == 401
                page.goto(f"{link}images/1?phrase=dog")
                expect(page.get_by_role("heading", name="A token is needed")).to_be_visible()
                page.get_by_label("Token").fill(token)
                page.get_by_role("button", name="Open").click()
                page.wait_for_url(f"{link}images/1?phrase=dog")
                expect(page.locator(".phrase")).to_have_text("a dog")
            with closing(chromium.new_context()) as context:
                page = context.new_page()
                page.goto(f"{link}?token={token}")
                assert page.url == link
                expect(page.locator("[data-card]")).to_have_count(1)
                is_drawn(page.locator("[data-card] img"))
                answer = page.goto(f"{link}images/1")
                assert answer
                assert answer.status == 200
        finally:
            server.terminate()


def test_who_is_among_the_failures_stays_there_while_the_figures_move(
    browse: Browse, address: str, database: Database, shelve: Shelve
) -> None:
    shelve("job", Picture("s3://a/1.jpg", code=Code.TIMEOUT), Picture("s3://a/2.jpg", [Thing("a dog")]))

    def change(values: str) -> None:
        with database.write() as connection:
            connection.execute(text(f"UPDATE jobs SET {values}"))

    change("state = 'running', images = 10, finished_at = NULL")
    page = browse(f"{address}/job?name=job")
    bar = page.get_by_role("progressbar", name="job", exact=True)
    expect(bar).to_have_attribute("aria-valuetext", "2 of 10")
    page.get_by_role("link", name="timeout").focus()
    page.evaluate("document.activeElement.dataset.mine = 'yes'")
    change("annotated = annotated + 3")
    expect(bar).to_have_attribute("aria-valuetext", "5 of 10", timeout=10_000)
    assert page.evaluate("document.activeElement.dataset.mine") == "yes"


@pytest.mark.usefixtures("archive")
def test_running_job_moves_on_the_page(browse: Browse, address: str, database: Database) -> None:
    def change(values: str) -> None:
        with database.write() as connection:
            connection.execute(text(f"UPDATE jobs SET {values} WHERE name = 'animals'"))

    change("state = 'running', images = images + 10, finished_at = NULL")
    page = browse(f"{address}/job?name=animals")
    expect(page.locator(".state")).to_have_text("running")
    pending = page.locator('[data-live="pending"]')
    expect(pending).to_have_text("10")
    change("annotated = annotated + 7")
    expect(pending).to_have_text("3", timeout=10_000)
    assert page.locator("progress").evaluate("bar => bar.max - bar.value") == 3
    change("annotated = annotated + 3, state = 'finished'")
    expect(page.locator(".state")).to_have_text("finished", timeout=10_000)
