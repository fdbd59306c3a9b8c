"""The README says what is so: its queries run, and the files that it names are there."""

import re
from pathlib import Path

import pytest

from schemas.database import Database

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
QUERIES = [
    query.strip() for block in re.findall(r"```sql\n(.*?)```", README, re.DOTALL) for query in block.split("\n\n")
]


@pytest.mark.parametrize("query", QUERIES)
def test_query_runs(query: str, database: Database) -> None:
    with database.read() as connection:
        assert connection.exec_driver_sql(query.replace("%", "%%") if not database.is_sqlite else query).returns_rows


def test_there_are_queries() -> None:
    assert len(QUERIES) >= 3


@pytest.mark.parametrize("link", re.findall(r"\]\((?!https?:)([^)#]+)\)", README))
def test_link_leads_to_a_file(link: str) -> None:
    assert (ROOT / link).exists()
