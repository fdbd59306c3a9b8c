"""The questions of the documentation have the right answers, on both databases, as `kosmograph sql` asks them."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import make_url, text

from catalog.reader import open_reader
from schemas.database import Database
from schemas.errors import Code
from tests.catalog.conftest import Picture, Shelve, Thing

ROOT = Path(__file__).parents[2]
SQL, README = (
    "\n".join(re.findall(r"```sql\n(.*?)```", (ROOT / name).read_text(), re.DOTALL))
    for name in ("docs/how-to/sql.md", "README.md")
)
QUERIES = dict(re.findall(r"^-- ([^\n]+\?)[^\n]*\n((?:[^-\n].*\n)+?)(?=\n|\Z)", SQL, re.M))
LEFT, RIGHT, WHOLE = (0.0, 0.0, 0.25, 0.5), (0.5, 0.0, 1.0, 0.5), (0.0, 0.0, 1.0, 1.0)

Rows = list[dict[str, Any]]
Ask = Callable[[str], Rows]


@pytest.fixture
def ask(database: Database, database_url: str) -> Iterator[Ask]:
    """The answer to the question that begins so; on PostgreSQL as a role that only reads, and in UTC."""
    url = database_url
    if not database.is_sqlite:
        with database.write() as connection:
            connection.execute(text("CREATE ROLE asker LOGIN IN ROLE pg_read_all_data"))
            connection.execute(text("ALTER ROLE asker SET timezone = 'UTC'"))
        url = make_url(database_url).set(username="asker").render_as_string(hide_password=False)

    def answer(begins: str) -> Rows:
        (query,) = (query for question, query in QUERIES.items() if question.startswith(begins))
        with open_reader(url) as reader:
            return reader.ask(query).records

    yield answer
    if not database.is_sqlite:
        with database.write() as connection:
            connection.execute(text("DROP ROLE asker"))


def test_every_question_is_checked_here() -> None:
    checked = set(re.findall(r'ask\("([^"]+)"\)', Path(__file__).read_text()))
    assert len(QUERIES) == len(checked) == SQL.count(";\n") == 10
    assert all(sum(question.startswith(begins) for begins in checked) == 1 for question in QUERIES)


def test_questions_of_the_readme_are_among_them() -> None:
    asked = README.strip().split("\n\n")
    assert len(asked) == 2
    assert all(one in SQL for one in asked)


def test_things_come_by_the_pictures_that_they_are_in(ask: Ask, shelve: Shelve) -> None:
    shelve(
        "job",
        Picture("s3://b/1", [Thing("a brown dog", [LEFT, RIGHT], 0.5), Thing("a cat", [WHOLE], 0.75)]),
        Picture("s3://b/2", [Thing("the dog", [WHOLE], 0.25), Thing("a dog", [LEFT], 0.5, valid=False)]),
        Picture("s3://b/3", [Thing("an owl", [])]),
    )
    assert ask("What is in the archive") == [
        {"head": "dog", "images": 2, "boxes": 3, "mean_score": pytest.approx(1.25 / 3)},
        {"head": "cat", "images": 1, "boxes": 1, "mean_score": 0.75},
    ]


def test_dog_left_of_a_person_is_not_one_to_the_right(ask: Ask, shelve: Shelve) -> None:
    shelve(
        "job",
        Picture("s3://b/left", [Thing("a dog", [LEFT]), Thing("a tall person", [RIGHT])]),
        Picture("s3://b/right", [Thing("a dog", [RIGHT]), Thing("a person", [LEFT])]),
        Picture("s3://b/in", [Thing("a dog", [LEFT]), Thing("a person", [WHOLE])]),
        Picture("s3://b/alone", [Thing("a dog", [LEFT])]),
    )
    assert ask("In which pictures is a dog") == [{"uri": "s3://b/left"}]


def test_pairs_are_ordered_by_how_much_more_than_chance(ask: Ask, shelve: Shelve) -> None:
    cup, tea, sky = Thing("a cup"), Thing("tea"), Thing("the sky")
    pictures = [Picture(f"s3://b/tea{n}", [cup, tea, sky] if n < 5 else [cup, tea]) for n in range(8)]
    pictures += [Picture(f"s3://b/sky{n}", [sky, Thing("a kite")] if n < 4 else [sky]) for n in range(24)]
    shelve("job", *pictures)
    rows = ask("What appears together")
    assert [(row["phrase_norm"], row["other_norm"], row["images"]) for row in rows] == [
        ("cup", "tea", 8),
        ("cup", "sky", 5),
        ("sky", "tea", 5),
    ]
    assert (rows[0]["phrase_images"], rows[1]["other_images"]) == (8, 29)
    assert float(rows[0]["pmi"]) == pytest.approx(2)  # 8 of 32, where chance has 8 × 8 / 32 = 2: four times
    assert float(rows[1]["pmi"]) < 0


def test_caption_that_names_a_dog_without_a_box_is_told(ask: Ask, shelve: Shelve) -> None:
    shelve(
        "job",
        Picture("s3://b/boxed", [Thing("a dog")]),
        Picture("s3://b/named", [Thing("a man")], caption="A man with two Dogs"),
        Picture("s3://b/unboxed", [Thing("a dog", [])]),
        Picture("s3://b/wrong", [Thing("a dog", valid=False)]),
        Picture("s3://b/hot", [Thing("a hotdog")], caption="A hotdog"),
    )
    assert [row["uri"] for row in ask("Which captions say dog")] == [
        "s3://b/named",
        "s3://b/unboxed",
        "s3://b/wrong",
    ]


def test_least_trusted_groundings_come_first(ask: Ask, shelve: Shelve, database: Database) -> None:
    shelve(
        "job",
        Picture("s3://b/1", [Thing("a cat", score=0.25), Thing("a mat", score=None)]),
        Picture("s3://b/2", [Thing("a bat", score=0.5), Thing("a rat", score=0.125, valid=False)]),
    )
    with database.write() as connection:
        connection.execute(text("UPDATE boxes SET evidence = 1 - score, doubts = 'frame'"))
    assert ask("Which groundings should") == [
        {"trust": 0.5, "score": 0.5, "phrase": "a bat", "doubts": "frame", "uri": "s3://b/2"},
        {"trust": 0.75, "score": 0.25, "phrase": "a cat", "doubts": "frame", "uri": "s3://b/1"},
    ]


def test_failures_are_counted_by_folder_and_code(ask: Ask, shelve: Shelve) -> None:
    shelve(
        "job",
        Picture("s3://b/x/1.jpg", code=Code.TRUNCATED),
        Picture("s3://b/x/2.jpg", code=Code.TRUNCATED),
        Picture("s3://b/x/y/3.jpg", code=Code.TRUNCATED),
        Picture("s3://b/x/4.jpg", code=Code.TOO_LARGE),
        Picture("s3://b/x/5.jpg", [Thing("a cat")]),
    )
    assert [tuple(row.values()) for row in ask("What failed")] == [
        ("s3://b/x/", "truncated", 2, "s3://b/x/1.jpg"),
        ("s3://b/x/", "too_large", 1, "s3://b/x/4.jpg"),
        ("s3://b/x/y/", "truncated", 1, "s3://b/x/y/3.jpg"),
    ]


def test_copies_are_the_same_bytes_under_several_names(ask: Ask, shelve: Shelve) -> None:
    shelve(
        "job",
        Picture("s3://b/1", [Thing("a cat")], content="same"),
        Picture("s3://b/2", [Thing("a cat")], content="same"),
        Picture("s3://b/3", [Thing("a cat")]),
    )
    shelve("again", Picture("s3://b/3", [Thing("a cat")]))
    (row,) = ask("Which pictures are there more")
    assert (row["copies"], row["one"], row["another"]) == (2, "s3://b/1", "s3://b/2")


def test_change_is_where_two_jobs_differ_on_one_picture(ask: Ask, shelve: Shelve) -> None:
    same, new = Picture("s3://b/same", [Thing("a cat")]), Picture("s3://b/new", [Thing("an owl")])
    shelve("before", same, Picture("s3://b/1", [Thing("a cat")]))
    shelve("after", same, new, Picture("s3://b/1", [Thing("a brown cat")]), model="other")
    assert [tuple(row.values()) for row in ask("What does another model")] == [
        ("s3://b/1", "An image of a cat", "An image of a brown cat")
    ]


def test_share_is_that_of_the_largest_box_in_each_picture(ask: Ask, shelve: Shelve) -> None:
    shelve(
        "job",
        Picture("s3://b/1", [Thing("a cat", [LEFT, RIGHT])]),
        Picture("s3://b/2", [Thing("the cat", [WHOLE])]),
        Picture("s3://b/3", [Thing("a mat", [LEFT])]),
    )
    assert ask("How much of the picture") == [
        {"phrase_norm": "cat", "pictures": 2, "mean_share": 0.625},
        {"phrase_norm": "mat", "pictures": 1, "mean_share": 0.125},
    ]


def test_captions_are_counted_in_the_hour_in_which_they_were_made(ask: Ask, shelve: Shelve, database: Database) -> None:
    shelve("job", Picture("s3://b/1", content="x"), Picture("s3://b/2"), Picture("s3://b/3"))
    shelve("late", Picture("s3://b/1", content="x"), model="other")
    shelve("again", Picture("s3://b/1", content="x"))
    with database.write() as connection:
        # 1 January 2026, 13:59:59, 14:00:00 and so on
        connection.execute(text("UPDATE annotations SET created_at = 1767275999 + id - 1"))
    rows = ask("How many captions were made")
    assert [(row["job"], row["hour"], row["captions"], float(row["mean_tokens"])) for row in rows] == [
        ("job", "2026-01-01 13", 1, 7),
        ("job", "2026-01-01 14", 2, 7),
        ("late", "2026-01-01 14", 1, 7),
    ]
