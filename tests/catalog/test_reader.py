"""A question can be given up from outside, and the next one is answered."""

import threading
import time
from collections.abc import Iterator

import pytest

from catalog.reader import Interrupted, Reader, open_reader
from schemas.database import Database

FOREVER = {
    "sqlite": "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT COUNT(*) FROM n",
    "postgresql": "SELECT pg_sleep(600)",
}


@pytest.fixture
def reader(database: Database, database_url: str) -> Iterator[Reader]:
    with open_reader(database_url) as one:
        yield one


def test_question_that_is_given_up_ends_and_the_next_one_is_answered(reader: Reader) -> None:
    given_up = threading.Timer(0.2, reader.interrupt)
    given_up.start()
    with pytest.raises(Interrupted):
        reader.select(FOREVER[reader.dialect])
    given_up.join()
    with pytest.raises(Interrupted):  # the same question goes on with the next statement
        reader.select("SELECT 1")
    reader.rest()
    assert reader.select("SELECT 1 AS one").rows == [(1,)]


def test_reader_that_has_nothing_to_do_is_none_the_worse_for_it(reader: Reader) -> None:
    reader.interrupt()
    time.sleep(0.1)
    reader.rest()
    assert reader.select("SELECT 1 AS one").rows == [(1,)]
