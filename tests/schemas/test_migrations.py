"""The schema's versions: up, down, at once, and the same as the tables that the code knows."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import inspect, text

from schemas.database import Database
from schemas.errors import SetupError
from schemas.migrations import alembic_config, downgrade, require_current, upgrade, version_of
from schemas.tables import metadata
from schemas.version import HEAD
from schemas.views import view_statements

ROOT = Path(__file__).parents[2]
UPGRADE = """
import sys
from schemas.database import Database
from schemas.migrations import upgrade
sys.stdin.readline()
database = Database(sys.argv[1])
upgrade(database)
database.close()
"""


@pytest.fixture
def bare(database: Database) -> Database:
    """A database with nothing in it."""
    downgrade(database, "base")
    with database.write() as connection:
        connection.execute(text("DROP TABLE alembic_version"))
    return database


def names(database: Database) -> tuple[set[str], set[str]]:
    """Tables and views."""
    with database.read() as connection:
        found = inspect(connection)
        return set(found.get_table_names()), set(found.get_view_names())


def test_upgrade_makes_all_tables_and_views(bare: Database) -> None:
    assert names(bare) == (set(), set())
    assert version_of(bare) is None
    upgrade(bare)
    assert names(bare) == ({*metadata.tables, "alembic_version"}, set(view_statements("sqlite")))
    assert version_of(bare) == HEAD


def test_upgrade_of_a_current_database_changes_nothing(database: Database, ledger: Any) -> None:
    ledger.open("night")
    upgrade(database)
    assert ledger.sql("SELECT name FROM jobs") == [{"name": "night"}]


def test_downgrade_leaves_no_table_and_upgrade_makes_them_again(database: Database) -> None:
    before = names(database)
    downgrade(database, "base")
    assert names(database) == ({"alembic_version"}, set())
    assert version_of(database) is None
    upgrade(database)
    assert names(database) == before


def test_the_migrated_schema_is_that_of_the_tables(database: Database) -> None:
    with database.read() as connection:
        # SQLite writes a default in words of its own
        options = {"compare_type": True, "compare_server_default": not database.is_sqlite}
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, metadata) == []


def test_the_migrated_constraints_are_those_of_the_tables(database: Database) -> None:
    """Which alembic does not compare."""
    with database.read() as connection:
        found = inspect(connection)
        for table in metadata.tables.values():
            expected = {one.name for one in table.constraints if type(one).__name__ == "CheckConstraint"}
            assert {one["name"] for one in found.get_check_constraints(table.name)} == expected


def test_head_is_the_newest_migration(database: Database) -> None:
    with database.read() as connection:
        script = ScriptDirectory.from_config(alembic_config(connection))
    assert script.get_heads() == [HEAD]


def test_several_processes_that_upgrade_at_once_all_succeed(bare: Database, database_url: str) -> None:
    command = [sys.executable, "-W", "error", "-c", UPGRADE, database_url]
    several = [
        subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(3)
    ]
    for process in several:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    errors = [process.communicate()[1] for process in several]
    assert ([process.returncode for process in several], errors) == ([0, 0, 0], ["", "", ""])
    assert names(bare)[0] == {*metadata.tables, "alembic_version"}


def test_an_upgrade_that_fails_leaves_the_database_as_it_was(bare: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "schemas.migrations.view_statements", lambda dialect: {"broken": "SELECT * FROM nowhere_at_all("}
    )
    with pytest.raises(Exception, match=r"(?i)syntax|incomplete"):
        upgrade(bare)
    assert names(bare) == (set(), set())


def test_a_current_database_is_accepted(database: Database) -> None:
    require_current(database)


def test_a_database_without_tables_is_told_with_the_remedy(bare: Database) -> None:
    with pytest.raises(SetupError, match="holds no Kosmograph tables; kosmograph annotate"):
        require_current(bare)


def test_a_file_that_is_not_there_is_told_and_not_made(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/k.db")
    with pytest.raises(SetupError, match=r"there is no database at .*k\.db; kosmograph annotate"):
        require_current(database)
    assert not (tmp_path / "k.db").exists()


def test_another_version_is_told_with_the_remedy(database: Database, ledger: Any) -> None:
    ledger.change("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(SetupError, match=f"has schema 9999, this Kosmograph needs {HEAD}"):
        require_current(database)


def test_a_database_of_a_newer_kosmograph_is_not_touched(database: Database, ledger: Any) -> None:
    ledger.open("night")
    ledger.change("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(SetupError, match=r"has schema 9999.*newer"):
        upgrade(database)
    assert ledger.sql("SELECT name FROM jobs") == [{"name": "night"}]


@pytest.mark.parametrize("use", [upgrade, require_current])
def test_a_database_that_cannot_be_used_is_told_in_one_line(tmp_path: Path, use: Any) -> None:
    (tmp_path / "k.db").write_text("This is no database, but a letter that is long enough to be looked at twice." * 20)
    with pytest.raises(SetupError, match=r"cannot use .*k\.db: .*not a database.*--db") as caught:
        use(Database(f"sqlite:///{tmp_path}/k.db"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("use", [upgrade, require_current])
def test_a_server_that_does_not_answer_is_told_in_one_line_without_its_password(use: Any) -> None:
    with pytest.raises(SetupError, match=r"cannot use postgresql\+psycopg://me:\*\*\*@127\.0\.0\.1:1/x: ") as caught:
        use(Database("postgresql://me:hunter2@127.0.0.1:1/x?connect_timeout=5"))
    assert "hunter2" not in str(caught.value)
    assert "\n" not in str(caught.value)
