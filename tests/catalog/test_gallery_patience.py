"""What takes too long is given up, and keeps nothing else waiting."""

import asyncio
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

import worker.images
from catalog.gallery.pictures import AT_ONCE, LARGE
from catalog.gallery.readers import CONNECTIONS, Readers
from catalog.reader import Interrupted, Reader, open_reader
from catalog.search import Page
from kosmograph.serve import Indexing
from schemas.caption_search import TABLE, index_captions
from schemas.database import Database
from schemas.errors import Code, PermanentFailure
from tests.catalog.conftest import Picture, Shelve, Thing
from tests.catalog.galleries import Gallery, gallery, ids_of, real_picture, run
from tests.catalog.test_reader import FOREVER

__all__ = ["gallery"]


@pytest.fixture
def readers(database: Database, database_url: str) -> Iterator[Readers]:
    every = Readers(lambda: open_reader(database_url))
    yield every
    every.close()


def forever(reader: Reader) -> Any:
    return reader.select(FOREVER[reader.dialect])


def one(reader: Reader) -> Any:
    return reader.select("SELECT 1").rows[0][0]


def test_question_is_given_up_when_its_time_is_over_and_no_other_one_suffers(
    readers: Readers, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def ask() -> None:
        monkeypatch.setattr("catalog.gallery.readers.PATIENCE_S", 0.3)
        monkeypatch.setattr("catalog.gallery.readers.AGAIN_S", 0.05)
        slow = [readers.ask(forever) for _ in range(CONNECTIONS + 2)]  # two of them never have a reader
        assert [type(said) for said in await asyncio.gather(*slow, return_exceptions=True)] == [Interrupted] * 6
        monkeypatch.setattr("catalog.gallery.readers.PATIENCE_S", 60)
        assert await asyncio.gather(*(readers.ask(one) for _ in range(200))) == [1] * 200

    run(ask())


def test_question_that_begins_again_and_again_is_given_up_too(
    readers: Readers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is said to the database between two statements reaches none of them."""
    ended = threading.Event()

    def many(reader: Reader) -> None:
        try:
            while True:
                one(reader)
        finally:
            ended.set()

    async def ask() -> None:
        monkeypatch.setattr("catalog.gallery.readers.PATIENCE_S", 0.3)
        with pytest.raises(Interrupted):
            await readers.ask(many)
        assert await asyncio.to_thread(ended.wait, 30)

    run(ask())


def test_question_is_not_interrupted_for_the_one_before(readers: Readers, monkeypatch: pytest.MonkeyPatch) -> None:
    """They end at all moments around that at which their time is over; those of the other kind have all the time."""
    monkeypatch.setattr("catalog.gallery.readers.AGAIN_S", 0.001)

    def some(reader: Reader, count: int) -> int:
        return sum(one(reader) for _ in range(count))

    async def hurried(count: int) -> None:
        with suppress(Interrupted):
            assert await readers.ask(some, count) == count

    async def ask() -> None:
        for count in range(1, 200, 2):
            monkeypatch.setattr("catalog.gallery.readers.PATIENCE_S", 0.004)
            impatient = [asyncio.create_task(hurried(count)) for _ in range(CONNECTIONS)]
            await asyncio.sleep(0)
            monkeypatch.setattr("catalog.gallery.readers.PATIENCE_S", 60)
            assert await asyncio.gather(*(readers.ask(some, 20) for _ in range(CONNECTIONS))) == [20] * CONNECTIONS
            await asyncio.gather(*impatient)

    run(ask())


def test_slow_search_is_told_on_its_page(shelve: Shelve, gallery: Gallery, monkeypatch: pytest.MonkeyPatch) -> None:
    shelve("job", Picture("s3://a/1.jpg", [Thing("a dog")]))
    client = gallery()
    with monkeypatch.context() as patch:
        patch.setattr("catalog.gallery.readers.PATIENCE_S", 0.5)
        patch.setattr("catalog.gallery.pages.find_page", lambda reader, *_, **__: forever(reader))
        answer = client.get("/?phrase=dog")
    assert answer.status_code == 503
    assert "Ask for something rarer" in answer.text
    assert client.get("/?phrase=dog").status_code == 200


def test_thumbnails_are_shown_while_all_readers_search(
    shelve: Shelve, gallery: Gallery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelve("job", real_picture(tmp_path / "a.jpg"))
    searching, enough = threading.Semaphore(0), threading.Event()

    def slow(*_: Any, **__: Any) -> Page:
        searching.release()
        enough.wait()
        return Page([])

    monkeypatch.setattr("catalog.gallery.pages.find_page", slow)
    client = gallery()
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        searches = [pool.submit(client.get, "/") for _ in range(CONNECTIONS)]
        try:
            for _ in searches:
                assert searching.acquire(timeout=30)
            assert client.get("/thumbnails/1").status_code == 200
        finally:
            enough.set()
        assert [search.result().status_code for search in searches] == [200] * CONNECTIONS


def test_kept_thumbnails_do_not_wait_behind_slow_sources(
    shelve: Shelve, gallery: Gallery, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelve("job", *(real_picture(tmp_path / f"{n}.jpg", colour=40 * n) for n in range(AT_ONCE + 1)))
    ids = ids_of(database)
    fetching, enough = threading.Semaphore(0), threading.Event()

    def slow(*_: Any) -> Any:
        fetching.release()
        enough.wait()
        raise PermanentFailure(Code.NOT_FOUND, "it is gone")

    client = gallery()
    assert client.get(f"/thumbnails/{ids['0.jpg']}").status_code == 200
    monkeypatch.setattr("worker.fetch.Fetcher.fetch", slow)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        others = [pool.submit(client.get, f"/thumbnails/{ids[f'{n}.jpg']}") for n in range(1, AT_ONCE + 1)]
        try:
            for _ in others:
                assert fetching.acquire(timeout=30)
            assert client.get(f"/thumbnails/{ids['0.jpg']}").status_code == 200
        finally:
            enough.set()
        assert [other.result().status_code for other in others] == [404] * AT_ONCE


def test_large_pictures_are_decoded_one_after_the_other(
    shelve: Shelve, gallery: Gallery, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the content's size says; those here are small, so that the test is."""
    size = (5_000, LARGE // 5_000 + 1)
    shelve("job", *(replace(real_picture(tmp_path / f"{n}.jpg", colour=40 * n), size=size) for n in range(AT_ONCE)))
    shelve("small", *(real_picture(tmp_path / f"small{n}.jpg", colour=210 + 40 * n) for n in range(2)))
    at_work: list[bytes] = []
    most: list[int] = []
    both = threading.Barrier(2)
    upright = worker.images.upright

    def counted(data: bytes, *limits: Any, **side: Any) -> Any:
        at_work.append(data)
        most.append(len(at_work))
        time.sleep(0.02)
        at_work.remove(data)
        return upright(data, *limits, **side)

    def together(*given: Any, **named: Any) -> Any:
        both.wait(30)
        return upright(*given, **named)

    def ask(name: str) -> int:
        return client.get(f"/thumbnails/{ids[name]}").status_code

    ids = ids_of(database)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        with monkeypatch.context() as patch:
            patch.setattr("worker.images.upright", counted)
            client = gallery()
            assert list(pool.map(ask, [f"{n}.jpg" for n in range(AT_ONCE)])) == [200] * AT_ONCE
        monkeypatch.setattr("worker.images.upright", together)
        client = gallery()
        assert list(pool.map(ask, ["small0.jpg", "small1.jpg"])) == [200] * 2
    assert max(most) == 1


def test_captions_are_indexed_by_one_request_at_a_time_and_by_none_for_long(
    shelve: Shelve, reader: Reader, database: Database, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelve("job", *(Picture(f"s3://a/{n}.jpg", [Thing("a zebra")]) for n in range(7)))
    index = Indexing(database_url)
    if database.is_sqlite:
        with database.write() as connection:
            connection.execute(text(f"INSERT INTO {TABLE} ({TABLE}) VALUES ('delete-all')"))
        monkeypatch.setattr("schemas.caption_search.AT_ONCE", 2)
        monkeypatch.setattr("schemas.caption_search.index_captions", lambda database: index_captions(database, 2))
        monkeypatch.setattr("kosmograph.serve.INDEXING_S", 0.0)
        with index._one:
            assert not index(reader)
        assert [index(reader) for _ in range(3)] == [False] * 3
    assert index(reader)
