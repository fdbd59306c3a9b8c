"""The schema's versions: up, down, at once, and the same as the tables that the code knows."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import inspect, text

from catalog.reader import open_reader
from catalog.search import Search, find_page
from schemas import caption_search
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


AT_0001 = """
INSERT INTO jobs (id, name, queue, state, listing, recipes, created_at, started_at)
VALUES (1, 'night', 'q', 'finished', '{}', 1, 0, 0);
INSERT INTO recipes VALUES (1, 'h', 'brief', 'p', 'demo', 'r', '{}');
INSERT INTO job_recipes VALUES (1, 1, 0);
INSERT INTO contents VALUES (1, 's', 640, 480, 'JPEG', 9);
INSERT INTO images VALUES (1, 'k', 'file:///a.jpg', '1', 1);
INSERT INTO annotations VALUES (1, 1, 1, '', 'a cat', 'a cat', 'stop', 3, -0.5, 'cpu', 0);
INSERT INTO entities VALUES (1, 0, 'a cat', 'cat', 0, 5);
INSERT INTO boxes VALUES (1, 0, 0, 0, 0, 1, 1, 1, 0.25, true), (1, 0, 1, 0, 0, 1, 1, 1, NULL, true);
INSERT INTO outcomes (job_id, image_id, recipe_id, annotation_id, settled_at) VALUES (1, 1, 1, 1, 0);
"""
"""What the first version has written, with the joint probability of two location tokens as the score of a box."""


@pytest.fixture
def bare(database: Database) -> Database:
    """A database with nothing in it."""
    downgrade(database, "base")
    with database.write() as connection:
        connection.execute(text("DROP TABLE alembic_version"))
    return database


def names(database: Database) -> tuple[set[str], set[str]]:
    """Tables and views, but for those that SQLite makes for its index of words."""
    with database.read() as connection:
        found = inspect(connection)
        ours = {name for name in found.get_table_names() if not is_of_the_words(name)}
        return ours, set(found.get_view_names())


def is_of_the_words(name: str | None) -> bool:
    return name is not None and caption_search.TABLE in name


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


@pytest.fixture
def at_0001(bare: Database) -> Database:
    """A database of the first version with a caption of one phrase and two boxes, of which the prompt gave one."""
    with bare.write() as connection:
        command.upgrade(alembic_config(connection), "0001")
    with bare.write() as connection:
        for statement in AT_0001.split(";\n"):
            connection.execute(text(statement)) if statement else None
    return bare


def groundings(database: Database) -> list[dict[str, Any]]:
    with database.read() as connection:
        return [dict(row) for row in connection.execute(text("SELECT * FROM groundings ORDER BY box")).mappings()]


def tables(database: Database) -> dict[str, str]:
    """What each table is made of: its own statement on SQLite, its columns on PostgreSQL."""
    with database.read() as connection:
        found = inspect(connection)
        if not database.is_sqlite:
            return {name: str(found.get_columns(name)) for name in found.get_table_names()}
        statements = connection.execute(text("SELECT name, sql FROM sqlite_master WHERE type = 'table'"))
        return {row.name: row.sql for row in statements}


def test_scores_of_the_first_version_become_geometric_means_and_its_phrases_have_none(at_0001: Database) -> None:
    before = groundings(at_0001)
    assert [row["score"] for row in before] == [0.25, None]
    upgrade(at_0001)
    assert version_of(at_0001) == HEAD
    after = groundings(at_0001)
    assert [row["score"] for row in after] == [0.5, None]
    columns = len(before[0])
    assert [list(row)[columns : columns + 2] for row in after] == [["phrase_score", "head"]] * 2
    # nothing is known of how far to believe them
    added = dict.fromkeys(list(after[0])[columns:]) | {"head": "cat"}
    assert [row | {"score": None} for row in after] == [row | {"score": None, **added} for row in before]


def test_captions_of_the_first_version_are_found_by_their_words(at_0001: Database, database_url: str) -> None:
    upgrade(at_0001)
    with open_reader(database_url) as reader:
        assert find_page(reader, Search(text="cats"), limit=9).hits == [(1, 1)]
        assert find_page(reader, Search(text="dog"), limit=9).hits == []


def test_downgrade_gives_the_first_version_back_with_its_rows_and_views(at_0001: Database) -> None:
    before, schema = groundings(at_0001), tables(at_0001)
    upgrade(at_0001)
    assert tables(at_0001) != schema
    downgrade(at_0001, "0001")
    assert version_of(at_0001) == "0001"
    assert groundings(at_0001) == before
    assert tables(at_0001) == schema


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_upgraded_table_is_without_rowid_still(at_0001: Database) -> None:
    upgrade(at_0001)
    assert "WITHOUT ROWID" in tables(at_0001)["entities"]


def test_the_migrated_schema_is_that_of_the_tables(database: Database) -> None:
    with database.read() as connection:
        # SQLite writes a default in words of its own
        options = {
            "compare_type": True,
            "compare_server_default": not database.is_sqlite,
            "include_object": lambda item, name, kind, *_: not is_of_the_words(name),
        }
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
    python = [sys.executable, "-W", "error", "-c", UPGRADE, database_url]
    several = [
        subprocess.Popen(python, cwd=ROOT, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(3)
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
        "schemas.migrations.view_statements", lambda *which: {"broken": "SELECT * FROM nowhere_at_all("}
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
