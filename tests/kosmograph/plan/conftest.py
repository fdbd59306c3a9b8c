"""What tests of `plan` share with others."""

import uuid
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import create_engine, make_url, text

from tests.catalog.conftest import shelve as shelve
from tests.pipeline.conftest import kosmograph as kosmograph


@pytest.fixture
def do(postgres_server: str) -> Callable[[str], list[Any]]:
    """Runs a statement on the PostgreSQL server."""

    def run(statement: str) -> list[Any]:
        engine = create_engine(make_url(postgres_server).set(drivername="postgresql+psycopg"))
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            answer = connection.execute(text(statement))
            rows = list(answer) if answer.returns_rows else []
        engine.dispose()
        return rows

    return run


@pytest.fixture
def postgres_url(postgres_server: str, do: Callable[[str], list[Any]]) -> str:
    """An empty database with all tables on the PostgreSQL server."""
    name = f"test_{uuid.uuid4().hex}"
    do(f'CREATE DATABASE "{name}" TEMPLATE template')
    return make_url(postgres_server).set(database=name).render_as_string(hide_password=False)
