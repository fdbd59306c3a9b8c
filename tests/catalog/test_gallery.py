"""The pages of the gallery: what they show, how they lead on, and that everything on them is text."""

import html
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from sqlalchemy import text
from starlette.testclient import TestClient

from catalog.drawing import COLOURS
from catalog.gallery import questions
from catalog.gallery.app import STATIC
from catalog.gallery.guard import HEADERS, Access
from catalog.reader import Reader
from schemas.database import Database
from schemas.errors import Code
from tests.catalog.conftest import Picture, Shelve, Thing
from tests.catalog.galleries import Gallery, gallery, ids_of

__all__ = ["gallery"]
LEFT, RIGHT, LARGE = (0.0, 0.4, 0.3, 0.6), (0.7, 0.4, 1.0, 0.6), (0.1, 0.1, 0.9, 0.9)
HOSTILE = "<script>alert(1)</script>\"'&\n\u202egpj"


@pytest.fixture
def zoo(shelve: Shelve, gallery: Gallery) -> TestClient:
    """A gallery of two jobs; one picture of them has failed."""
    shelve(
        "zoo",
        Picture("s3://zoo/1.jpg", [Thing("a brown dog", [LEFT], 0.9), Thing("a man", [RIGHT], 0.4)]),
        Picture("s3://zoo/2.jpg", [Thing("two dogs", [LEFT, RIGHT], 0.3)]),
        Picture("s3://zoo/3.jpg", [Thing("a man", [LARGE])]),
        Picture("s3://zoo/4.jpg", code=Code.TRUNCATED),
    )
    shelve("farm", Picture("s3://zoo/1.jpg", [Thing("dog", [LEFT])]), task="detailed", model="demo")
    return gallery()


def cards(page: str) -> list[str]:
    """The addresses of the cards on a page, in order."""
    return [html.unescape(one) for one in re.findall(r'<a href="([^"]+)" data-card', page)]


def link(page: str, mark: str) -> str:
    """The address of the link that has this in its tag; "" where there is none."""
    found = re.search(rf'<a href="([^"]*)"[^>]*{mark}|<a[^>]*{mark}[^>]*href="([^"]*)"', page)
    return html.unescape(found[1] or found[2]) if found else ""


@pytest.mark.parametrize(
    "path",
    [
        *("/", "/?q=dog", "/images/1", "/jobs", "/job?name=zoo", "/job.json?name=zoo", "/failures?job=zoo", "/none"),
        *("/static/gallery.css", "/thumbnails/1", "/thumbnails/999", "/?min_score=x", "/job?name=none"),
    ],
)
def test_every_answer_is_strict_with_the_browser(zoo: TestClient, path: str) -> None:
    answer = zoo.get(path)
    assert {name: answer.headers[name] for name in HEADERS} == HEADERS
    assert "unsafe" not in answer.headers["Content-Security-Policy"]
    assert "Cache-Control" in answer.headers
    if "html" in answer.headers["Content-Type"]:
        assert not re.search(r"\sstyle=|<style|\son\w+=|<script>|javascript:|https?://", answer.text)
    assert zoo.head(path).status_code == answer.status_code
    assert zoo.post(path).status_code == 405


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("", 4),
        ("?q=dog", 3),
        ("?q=dog+-brown", 2),
        ("?phrase=dog&job=zoo", 2),
        ("?phrase=dog&phrase=man", 1),
        ("?phrase=dog&relation=left_of&partner=man", 1),
        ("?phrase=man&max_score=0.45", 1),
        ("?min_area=0.5", 1),
        ("?phrase=dog&place=right", 1),
        ("?task=detailed", 1),
        ("?phrase=cat&model=demo", 0),
    ],
)
def test_grid_shows_what_find_finds(zoo: TestClient, query: str, found: int) -> None:
    page = zoo.get("/" + query)
    assert page.status_code == 200
    assert len(cards(page.text)) == found
    assert ("Nothing found" in page.text) == (found == 0)
    assert all(card.endswith(query) for card in cards(page.text))


def test_address_is_brought_into_its_one_form(zoo: TestClient) -> None:
    answer = zoo.get("/?q=&phrase=dog,+man&min_score=0.10&relation=left_of&partner=&nonsense=1")
    assert (answer.status_code, answer.headers["Location"]) == (303, "/?phrase=dog&phrase=man&min_score=0.1")
    assert zoo.get(answer.headers["Location"]).status_code == 200


@pytest.mark.parametrize("number", ["0.1234567", "1e-07", "0.30000000000000004", "0", "1"])
def test_number_is_kept_as_it_was_asked(zoo: TestClient, number: str) -> None:
    assert zoo.get(f"/?min_score={number}").status_code == 200


def test_phrase_whose_name_begins_with_an_article_is_found_by_its_link(shelve: Shelve, gallery: Gallery) -> None:
    shelve("job", Picture("s3://a/1.jpg", [Thing("the A team")]), Picture("s3://a/2.jpg", [Thing("a team")]))
    client = gallery()
    link = re.findall(r'class="phrase c0"[^>]*href="([^"]+)"', client.get(cards(client.get("/").text)[0]).text)[0]
    assert len(cards(client.get(html.unescape(link)).text)) == 1


def test_phrase_with_commas_is_found_by_its_link(shelve: Shelve, gallery: Gallery) -> None:
    shelve("job", Picture("s3://a/1.jpg", [Thing("a red, white and blue flag"), Thing("a dog")]))
    client = gallery()
    page = client.get(cards(client.get("/").text)[0]).text
    found = client.get(html.unescape(re.findall(r'class="phrase c0"[^>]*href="([^"]+)"', page)[0])).text
    assert len(cards(found)) == 1
    assert 'name="phrase" value="=red, white and blue flag"' in found
    both = client.get("/?phrase=%3Dred,+white+and+blue+flag&phrase=dog,+red*").text
    assert len(cards(both)) == 0
    both = client.get("/?phrase=%3Dred,+white+and+blue+flag&phrase=dog").text
    assert len(cards(both)) == 1
    for first, second in (("dog", "=red, white and blue flag"), ("=red, white and blue flag", "dog")):
        page = client.get("/", params={"phrase": [first, second]}).text
        assert re.findall(r'name="phrase" value="([^"]+)"', page) == [first, second]


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("?min_score=7", "a number from 0 to 1"),
        ("?min_area=nan", "a number from 0 to 1"),
        ("?place=nowhere", "there is no place"),
        ("?relation=beside&partner=dog", "there is no relation"),
        ("?job=none", "there is no job"),
        ("?after=zzz", "is no cursor"),
        ("?q=-dog", "names no word"),
        ("?phrase=" + ",".join("abcdefghijklmn"), "more than 12 phrases"),
    ],
)
def test_what_cannot_be_asked_is_told_on_the_page(zoo: TestClient, query: str, said: str) -> None:
    page = zoo.get("/" + query)
    assert page.status_code == 400
    assert said in html.unescape(page.text)
    assert 'role="alert"' in page.text


def test_more_link_leads_on_to_the_rest_and_each_picture_back_to_its_grid(shelve: Shelve, gallery: Gallery) -> None:
    shelve("many", *(Picture(f"s3://many/{n}.jpg", [Thing("a dog", [LEFT])]) for n in range(60)))
    client = gallery()
    for query in ("", "?phrase=dog"):
        first = client.get("/" + query).text
        second = client.get(link(first, 'rel="next"')).text
        every = cards(first) + cards(second)
        assert (len(cards(first)), len(set(every)), link(second, 'rel="next"')) == (48, 60, "")
        walked = list(walk(client, every[0], "next"))
        assert walked == every
        assert list(walk(client, every[-1], "previous")) == every[::-1]
        for card in (every[0], every[30], every[-1]):
            back, _, mark = link(client.get(card).text, 'data-move="back"').partition("#")
            page = client.get(back).text
            assert card in cards(page)
            assert f'id="{mark}"' in page


def test_link_leads_to_what_lies_before_the_first_card(shelve: Shelve, gallery: Gallery) -> None:
    shelve("many", *(Picture(f"s3://many/{n}.jpg", [Thing("a dog", [LEFT])]) for n in range(130)))
    client = gallery()
    for query in ("", "?phrase=dog"):
        pages = [client.get("/" + query).text]
        while more := link(pages[-1], 'rel="next"'):
            pages.append(client.get(more).text)
        every = [card for page in pages for card in cards(page)]
        back = [pages[-1]]
        assert link(pages[0], 'rel="prev"') == ""
        while before := link(back[-1], 'rel="prev"'):
            back.append(client.get(before, follow_redirects=True).text)
        assert [cards(page) for page in back] == [every[96:], every[48:96], every[:48]]


def walk(client: TestClient, path: str, move: str) -> Iterator[str]:
    while path:
        yield path
        path = link(client.get(path).text, f'data-move="{move}"')


def test_picture_page_ties_phrases_to_boxes_and_leads_to_other_tasks(zoo: TestClient) -> None:
    page = zoo.get(cards(zoo.get("/?q=brown").text)[0]).text
    assert re.findall(r'class="phrase c(\d)" data-entity="(\d)" href="([^"]+)"[^>]*>([^<]+)', page) == [
        ("0", "0", "/?phrase=%3Dbrown+dog", "a brown dog"),
        ("1", "1", "/?phrase=%3Dman", "a man"),
    ]
    assert 'aria-label="a man, score 0.40, 6% of the picture"' in page
    assert re.search(r'class="line" x="700.0" y="300.0" width="300.0" height="150.0"', page)
    other = re.findall(r'<a href="(/images/\d+/\d+)[^"]*">detailed</a>', page)
    assert len(other) == 1
    detailed = zoo.get(other[0]).text
    assert "demo model" in detailed
    assert "demo model</strong>" not in page


def test_label_is_the_phrase_and_a_short_score(shelve: Shelve, gallery: Gallery) -> None:
    shelve("job", Picture("s3://a/1.jpg", [Thing("version 0.5 sign", [LEFT], 0.25), Thing("a 0.7", [RIGHT], 1.0)]))
    client = gallery()
    page = client.get(cards(client.get("/").text)[0]).text
    assert re.findall(r"<text [^>]*>([^<]+)</text>", page) == ["version 0.5 sign .25", "a 0.7 1.00"]


def test_grid_places_no_labels(zoo: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("catalog.gallery.shown._labels", lambda *_: pytest.fail("a grid shows no label"))
    assert len(cards(zoo.get("/").text)) == 4


def test_failure_that_is_put_back_is_shown_as_waiting(zoo: TestClient, database: Database) -> None:
    failed = ids_of(database)["4.jpg"]
    with database.write() as connection:
        connection.execute(text("UPDATE outcomes SET retrying = true WHERE code IS NOT NULL"))
    page = zoo.get(f"/images/{failed}").text
    assert "waiting to be tried again" in page
    assert "truncated" not in page


def test_image_without_annotation_says_what_failed(zoo: TestClient, database: Database) -> None:
    failed = ids_of(database)["4.jpg"]
    assert "truncated it is" in zoo.get(f"/images/{failed}").text
    assert zoo.get(f"/images/{failed}/1").status_code == 404


@pytest.mark.parametrize(
    "path",
    [
        *("/images/999", "/images/1/999", f"/images/{2**70}", f"/images/1/{2**70}", "/images/x", "/images/١"),
        *(f"/{kind}/{'9' * 5000}" for kind in ("images", "images/1", "thumbnails", "pictures")),
        *("/thumbnails/x", "/pictures/-1", "/static/none.css"),
    ],
    ids=lambda path: path[:20],
)
def test_what_is_not_there_is_not_found(zoo: TestClient, path: str) -> None:
    assert zoo.get(path).status_code == 404


def test_token_that_is_asked_for_leads_on_to_the_page_that_was_asked_for(gallery: Gallery) -> None:
    client = gallery(Access("a-secret-of-some-length"))
    page = client.get('http://localhost//evil.example/"x?name=%22%3E<b>&token=wrong&name=2').text
    assert '<form action="/evil.example/%22x" class="token">' in page
    held = re.findall(r'<input type="hidden" name="([^"]*)" value="([^"]*)">', page)
    assert held == [("name", "&#34;&gt;&lt;b&gt;"), ("name", "2")]


def test_jobs_and_failures_say_how_far_and_what_to_do(zoo: TestClient, shelve: Shelve) -> None:
    shelve("it's <odd>", Picture("s3://odd/1.jpg", code=Code.TIMEOUT), Picture("s3://odd/2.jpg", code=Code.TIMEOUT))
    assert "zoo" in (page := zoo.get("/jobs").text)
    assert page.index("odd") < page.index("farm") < page.index("zoo")
    now = zoo.get("/job.json?name=zoo").json()
    assert (now["job"]["summary"], now["job"]["failed"], now["job"]["live"]) == ("4 of 4", "1", False)
    assert now["failures"] == [{"code": "truncated", "failed": 1, "example": "truncated it is"}]
    page = zoo.get("/failures?job=" + quote("it's <odd>")).text
    command = html.unescape(re.search(r"<code data-copy>(.+?)</code>", page)[1])  # type: ignore[index]
    assert command.startswith("""kosmograph retry 'it'"'"'s <odd>' --code timeout --db """)
    assert page.count("timeout it is") == 2
    assert "Nothing has failed" in zoo.get("/failures?job=farm").text
    assert zoo.get("/failures?job=none").status_code == 404


def test_failures_of_a_running_job_are_not_counted_at_every_look(
    zoo: TestClient, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: list[str] = []
    count = questions._count_failures

    def counting(reader: Reader, job: str) -> Any:
        counted.append(job)
        return count(reader, job)

    monkeypatch.setattr(questions, "_count_failures", counting)

    def look(change: str) -> Any:
        with database.write() as connection:
            connection.execute(text(f"UPDATE jobs SET {change} WHERE name = 'zoo'"))
        return zoo.get("/job.json?name=zoo").json()["failures"]

    one = [{"code": "truncated", "failed": 1, "example": "truncated it is"}]
    assert [look("state = 'running'"), look("annotated = annotated + 1"), look("failed = 2")] == [one] * 3
    assert counted == ["zoo"]
    monkeypatch.setattr(questions, "LEAST_KEPT_S", 0.0)
    assert [look("failed = 3"), look("failed = 3")] == [one] * 2
    assert counted == ["zoo"] * 2
    monkeypatch.undo()
    with database.write() as connection:
        connection.execute(text("UPDATE outcomes SET retrying = true WHERE code IS NOT NULL"))
    assert look("state = 'finished', failed = 0") == []


def test_failures_come_page_by_page(shelve: Shelve, gallery: Gallery) -> None:
    shelve("bad", *(Picture(f"s3://bad/{n}.jpg", code=Code.NOT_FOUND) for n in range(130)))
    client = gallery()
    first = client.get("/failures?job=bad&code=not_found").text
    second = client.get(link(first, 'rel="next"')).text
    every = re.findall(r'href="/images/(\d+)"', first + second)
    assert (len(every), len(set(every)), link(second, 'rel="next"')) == (130, 130, "")


def test_failures_of_one_image_come_page_by_page(shelve: Shelve, gallery: Gallery, database: Database) -> None:
    """One for each of what the rows of a manifest asked of it."""
    shelve("bad", Picture("s3://bad/1.jpg", code=Code.NOT_FOUND))
    more = text(
        """INSERT INTO outcomes (job_id, image_id, recipe_id, input, code, message, settled_at)
        SELECT job_id, image_id, recipe_id, :input, code, :message, 0 FROM outcomes WHERE input = ''"""
    )
    with database.write() as connection:
        connection.execute(more, [{"input": f"{n:032x}", "message": f"no phrase {n}."} for n in range(129)])
    client = gallery()
    first = client.get("/failures?job=bad&code=not_found").text
    second = client.get(link(first, 'rel="next"')).text
    every = re.findall(r"no phrase (\d+)\.", first + second)
    assert (len(every), len(set(every)), link(second, 'rel="next"')) == (129, 129, "")


def test_failures_that_are_alike_tell_what_each_image_was_asked(
    shelve: Shelve, gallery: Gallery, database: Database
) -> None:
    shelve("bad", Picture("s3://bad/1.jpg", code=Code.NOT_FOUND))
    more = text(
        """INSERT INTO outcomes (job_id, image_id, recipe_id, input, code, message, settled_at)
        SELECT job_id, image_id, recipe_id, :input, code, message, 0 FROM outcomes WHERE input = ''"""
    )
    with database.write() as connection:
        connection.execute(more, [{"input": "1"}, {"input": "2"}])
        connection.execute(text("INSERT INTO inputs VALUES ('1', 'a <cat>'), ('2', 'a dog')"))
    client = gallery()
    for page in (client.get("/failures?job=bad").text, client.get("/images/1").text):
        assert page.count("brief: a &lt;cat&gt;") == page.count("brief: a dog") == 1
    assert page.count('<a href="/job?name=bad">') == 3


def test_running_job_is_asked_for_again_and_a_finished_one_is_not(zoo: TestClient, database: Database) -> None:
    assert "data-poll" not in zoo.get("/job?name=zoo").text
    with database.write() as connection:
        connection.execute(text("UPDATE jobs SET state = 'paused', reason = '<b>by hand' WHERE name = 'zoo'"))
    page = zoo.get("/job?name=zoo").text
    assert 'data-poll="/job.json?name=zoo"' in page
    assert "&lt;b&gt;by hand" in page


def test_names_captions_phrases_and_messages_are_text_everywhere(
    shelve: Shelve, gallery: Gallery, database: Database
) -> None:
    uri = f"s3://odd/{HOSTILE}.jpg"
    shelve(HOSTILE, Picture(uri, [Thing(HOSTILE, [LEFT])]), task=HOSTILE, model=HOSTILE)
    shelve("failed" + HOSTILE, Picture(uri + "2", code=Code.TIMEOUT))
    with database.write() as connection:
        connection.execute(text("UPDATE outcomes SET message = :text WHERE code IS NOT NULL"), {"text": HOSTILE})
    client, name = gallery(), quote(HOSTILE)
    paths = ["/", "/jobs", f"/job?name={name}", f"/failures?job=failed{name}", "/images/1", "/images/2"]
    paths += [f"/?{field}={name}" for field in ("q", "phrase", "place", "job", "task", "model", "relation", "after")]
    for path in paths:
        answer = client.get(path)
        if answer.status_code == 303:
            answer = client.get(answer.headers["Location"])
        assert answer.status_code in (200, 400, 404), path
        assert "<script>alert" not in answer.text, path
        assert "\u202e" not in re.sub(r'value="[^"]*"', "", answer.text), path
    assert r"<bdi>script&gt;&#34;&#39;&amp;\n\u202egpj.jpg</bdi>" in client.get("/").text


def test_away_database_is_told_in_one_line_and_comes_back(
    zoo: TestClient, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    import kosmograph.serve
    from schemas.errors import SetupError

    def away(db: str) -> Any:
        raise SetupError("postgresql://db does not answer: it is <away>")

    assert zoo.get("/").status_code == 200
    with monkeypatch.context() as patch:
        patch.setattr(kosmograph.serve, "open_database", away)
        if database.is_sqlite:
            drop_tables = "ALTER TABLE recipes RENAME TO recipes_away"
            with database.write() as connection:
                connection.execute(text(drop_tables))
        else:
            end_sessions(database)
        answers = [zoo.get(path) for path in ("/", "/", "/thumbnails/1") * 3]
        said = [answer for answer in answers if answer.status_code == 503]
        assert said
        assert all("it is &lt;away&gt;" in answer.text for answer in said)
    if database.is_sqlite:
        with database.write() as connection:
            connection.execute(text("ALTER TABLE recipes_away RENAME TO recipes"))
    assert zoo.get("/").status_code == 200


def end_sessions(database: Database) -> None:
    """End every other session of a PostgreSQL database, as a restart does."""
    with database.write() as connection:
        connection.execute(
            text(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        )


def test_lost_connection_is_replaced_unseen(zoo: TestClient, database: Database) -> None:
    if database.is_sqlite:
        pytest.skip("SQLite has no server to lose")
    assert [zoo.get("/").status_code for _ in range(8)] == [200] * 8
    end_sessions(database)
    assert [zoo.get("/").status_code for _ in range(8)] == [200] * 8


def test_no_session_stands_idle_in_a_transaction(zoo: TestClient, database: Database) -> None:
    if database.is_sqlite:
        pytest.skip("SQLite has no sessions")
    for path in ("/", "/images/1", "/jobs", "/?min_score=7", "/?job=none"):
        zoo.get(path)
    idle = "SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in%'"
    with database.read() as connection:
        assert connection.execute(text(idle)).scalar_one() == 0


def test_captions_that_are_not_indexed_yet_are_taken_in_by_a_search_for_words(
    shelve: Shelve, gallery: Gallery, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelve("job", Picture("s3://a/1.jpg", [Thing("a zebra", [LEFT])]))
    if database.is_sqlite:
        from schemas.caption_search import TABLE

        with database.write() as connection:
            connection.execute(text(f"INSERT INTO {TABLE} ({TABLE}) VALUES ('delete-all')"))
    assert len(cards(gallery().get("/?q=zebra").text)) == 1
    monkeypatch.setattr("kosmograph.serve.index_new_captions", lambda reader, db, limit_s: False)
    assert "not in the index of words yet" in gallery().get("/?q=zebra").text


def test_empty_database_says_how_to_fill_it(gallery: Gallery) -> None:
    client = gallery()
    assert "kosmograph annotate FOLDER" in client.get("/").text
    assert "kosmograph annotate FOLDER" in client.get("/jobs").text


def test_colours_are_those_of_the_drawings_with_readable_ink() -> None:
    style = Path(STATIC / "gallery.css").read_text()
    found = re.findall(r"\.c(\d) \{ --tint: #(\w{6}); --on: #(\w{6}); \}", style)
    assert [tuple(bytes.fromhex(tint)) for _, tint, _ in found] == list(COLOURS)
    for _, tint, ink in found:
        light, dark = sorted((luminance(tint), luminance(ink)), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5, tint


def luminance(colour: str) -> float:
    """WCAG 2's relative luminance."""
    parts = [part / 255 for part in bytes.fromhex(colour)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
