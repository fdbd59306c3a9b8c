"""The reference is what the code says, and the code says all that it must."""

import pytest
from sqlalchemy import text

from docs.generate import FOLDER, pages
from schemas.database import Database
from schemas.errors import ABOUT, Code
from schemas.meanings import COLUMNS, VIEWS
from schemas.settings import Settings
from schemas.views import view_statements

TYPES = {
    "text": "text",
    "integer": "integer",
    "bigint": "integer",
    "real": "real",
    "double precision": "real",
    "numeric": "real",
    "boolean": "boolean",
    "timestamp with time zone": "time",
}
"""PostgreSQL's types, as the reference calls them."""


@pytest.mark.parametrize("name", pages())
def test_reference_is_not_stale(name: str) -> None:
    assert (FOLDER / name).read_text() == pages()[name], "stale: python -m docs.generate makes the reference anew"


def test_every_column_of_every_view_has_a_meaning(database: Database) -> None:
    assert COLUMNS.keys() == VIEWS.keys() == view_statements("sqlite").keys()
    with database.read() as connection:
        for view, columns in COLUMNS.items():
            assert list(connection.execute(text(f"SELECT * FROM {view}")).keys()) == list(columns)
    assert all(column.text for columns in COLUMNS.values() for column in columns.values())


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_types_of_columns_are_those_of_postgresql(database: Database) -> None:
    query = "SELECT table_name, column_name, data_type FROM information_schema.columns WHERE table_schema = 'public'"
    with database.read() as connection:
        rows = connection.execute(text(query)).all()
    found = {(view, column): TYPES[kind] for view, column, kind in rows if view in COLUMNS}
    assert found == {(view, name): one.type for view, columns in COLUMNS.items() for name, one in columns.items()}


def test_every_setting_and_code_is_described() -> None:
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []
    assert ABOUT.keys() == set(Code)


def test_what_is_hidden_stays_out_of_the_reference() -> None:
    said = pages()["cli.md"]
    assert "--gpus" in said
    assert "--name " not in said
