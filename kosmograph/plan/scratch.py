"""A database of the same kind as the user's, for as long as a trial takes."""

import re
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sqlalchemy import Connection, create_engine, text
from sqlalchemy.exc import DBAPIError

from kosmograph.output import warn
from schemas.database import Database
from schemas.migrations import upgrade

PREFIX = "kosmograph_plan_"
MADE = re.compile(rf"{PREFIX}(\d+)_\w+")
"""When such a database was made: seconds since 1970."""
KEPT_S = 86_400
"""A database of a plan that was killed goes a day later, when the next one makes its own."""
SIZES = {
    True: "SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()",
    False: "SELECT SUM(pg_total_relation_size(c.oid)) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
    "WHERE n.nspname = current_schema() AND c.relkind = 'r'",
}


@contextmanager
def scratch_database(url: str, folder: Path) -> Iterator[Database]:
    """An empty database with all tables: a file in the folder, or one of its own beside the user's on PostgreSQL.

    A role that may create none gets a file too, and a warning: its sizes are SQLite's.
    """
    users = Database(url)
    try:
        with _place(users, folder) as place:
            database = Database(place)
            try:
                upgrade(database)
                yield database
            finally:
                database.close()
    finally:
        users.close()


@contextmanager
def _place(users: Database, folder: Path) -> Iterator[str]:
    if not users.is_sqlite and (name := _create(users)):
        try:
            yield users.url.set(database=name).render_as_string(hide_password=False)
        finally:
            _do(users, f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
    else:
        try:
            yield f"sqlite:///{folder}/plan.db"
        finally:
            for path in folder.glob("plan.db*"):
                path.unlink()


def _create(users: Database) -> str:
    """The name of a new database; "" where the role may create none."""
    name = f"{PREFIX}{time.time():.0f}_{uuid.uuid4().hex[:8]}"
    try:
        _sweep(users)
        _do(users, f'CREATE DATABASE "{name}"')
    except DBAPIError as error:
        said = str(error.orig).strip().split("\n")[0]
        warn(f"no database for the trial on the server ({said}); it takes SQLite, whose size and speed are others")
        return ""
    return name


def _sweep(users: Database) -> None:
    """Those that are in use, or another role's, stay."""
    with _server(users) as connection:
        names = connection.execute(text("SELECT datname FROM pg_database")).scalars().all()
        for name in names:
            if (made := MADE.fullmatch(name)) and float(made[1]) < time.time() - KEPT_S:
                with suppress(DBAPIError):
                    connection.execute(text(f'DROP DATABASE IF EXISTS "{name}"'))


def _do(users: Database, statement: str) -> None:
    with _server(users) as connection:
        connection.execute(text(statement))


@contextmanager
def _server(users: Database) -> Iterator[Connection]:
    engine = create_engine(users.url, isolation_level="AUTOCOMMIT")
    try:
        with engine.connect() as connection:
            yield connection
    finally:
        engine.dispose()


def size_of(database: Database) -> int:
    """Bytes of its tables and indexes, those included that it has not yet checkpointed."""
    with database.read() as connection:
        return int(connection.execute(text(SIZES[database.is_sqlite])).scalar() or 0)
