"""The benchmark of the catalog makes what it says, and asks it every question."""

from benchmarks.catalog import measure, questions, tables
from catalog.reader import open_reader


def test_archive_is_made_once_and_each_question_is_answered(database_url: str) -> None:
    first = measure(database_url, groundings=1_500, draws=3)
    again = measure(database_url, groundings=9_999, draws=3)
    assert first["images"] == again["images"]
    with open_reader(database_url) as reader:
        assert 1_500 <= reader.select("SELECT COUNT(*) FROM boxes").rows[0][0] < 1_510
    assert first["questions"].keys() == questions().keys()
    assert first["questions"]["the job's images"]["found"] == 50
    kind = "sqlite" if database_url.startswith("sqlite") else "postgresql"
    assert len(tables({kind: first})) == 2 + len(questions())
