"""The schema's versions. Alembic owns the tables; `upgrade` brings a database to the newest version."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, inspect, text
from sqlalchemy.exc import DBAPIError

from schemas.database import Database, is_passing
from schemas.errors import DatabaseAway, SetupError
from schemas.version import HEAD
from schemas.views import view_statements

if TYPE_CHECKING:
    from alembic.config import Config

_LOCK = int.from_bytes(hashlib.blake2b(b"kosmograph migrations", digest_size=7).digest(), "big")


def upgrade(database: Database) -> None:
    """Bring the database to the newest version, or make it. Of many processes at once, one works, the others wait."""
    version = _version_at_first_contact(database)
    if version == HEAD:
        return
    from alembic import command  # a quarter of a second, which no other command should pay
    from alembic.util import CommandError

    try:
        with _alone(database) as connection:
            if _version(connection) != HEAD:
                command.upgrade(alembic_config(connection), "head")
    except CommandError:
        raise SetupError(f"{database} has schema {version}, of a newer Kosmograph than this one ({HEAD})") from None


def downgrade(database: Database, revision: str) -> None:
    """Take the database back to a version; `base` is an empty one."""
    from alembic import command

    with _alone(database) as connection:
        command.downgrade(alembic_config(connection), revision)


def require_current(database: Database) -> None:
    """Raises SetupError unless the database is there and of this version: for commands that only read."""
    if database.path is not None and not database.path.exists():
        raise SetupError(
            f"there is no database at {database.path}; kosmograph annotate FOLDER makes one, --db names another"
        )
    version = _version_at_first_contact(database)
    if version is None:
        raise SetupError(f"{database} holds no Kosmograph tables; kosmograph annotate FOLDER --db URL makes them")
    if version != HEAD:
        raise SetupError(
            f"{database} has schema {version}, this Kosmograph needs {HEAD}; kosmograph annotate upgrades it"
        )


def version_of(database: Database) -> str | None:
    """The version of the schema, None for a database without one."""
    with database.read() as connection:
        return _version(connection)


def alembic_config(connection: Connection) -> "Config":
    """Alembic's configuration, bound to a connection that is in a transaction."""
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    config.attributes["connection"] = connection
    return config


def drop_views(connection: Connection) -> None:
    """Drop the public views, which depend on tables that a migration may change."""
    for name in reversed(view_statements(connection.dialect.name)):
        connection.execute(text(f"DROP VIEW IF EXISTS {name}"))


def create_views(connection: Connection, version: str) -> None:
    """Make the public views as they are at that version of the schema."""
    for name, statement in view_statements(connection.dialect.name, version).items():
        connection.exec_driver_sql(f"CREATE VIEW {name} AS {statement}")


def _version_at_first_contact(database: Database) -> str | None:
    try:
        return version_of(database)
    except DBAPIError as error:
        reason = " ".join(str(error.orig).split())
        kind = DatabaseAway if is_passing(error) else SetupError
        raise kind(f"cannot use {database}: {reason}; --db names another database") from None


def _version(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


@contextmanager
def _alone(database: Database) -> Iterator[Connection]:
    with database.write() as connection:  # SQLite: BEGIN IMMEDIATE is the lock
        if not database.is_sqlite:
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
        yield connection
