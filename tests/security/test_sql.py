"""What an analyst could do through `sql`: nothing is written, no file appears or is read, and it ends at its limit.

The plain writes are in tests/kosmograph/test_ask.py.
"""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import make_url, text

from catalog.reader import open_reader
from schemas.database import Database
from schemas.errors import SetupError, UsageError

on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
on_postgresql = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT COUNT(*) FROM n"


@pytest.fixture
def as_role(database: Database, database_url: str) -> Iterator[Any]:
    """The URL for a new role with these rights."""
    made: list[str] = []

    def make(name: str, *statements: str) -> str:
        made.append(name)
        with database.write() as connection:
            connection.execute(text(f"CREATE ROLE {name} LOGIN"))
            for statement in statements:
                connection.execute(text(statement))
        return make_url(database_url).set(username=name).render_as_string(hide_password=False)

    yield make
    for name in made:
        with database.write() as connection:
            connection.execute(text(f"REASSIGN OWNED BY {name} TO CURRENT_USER"))
            connection.execute(text(f"DROP OWNED BY {name}"))
            connection.execute(text(f"DROP ROLE {name}"))


@pytest.fixture
def analyst(database: Database, database_url: str, request: pytest.FixtureRequest) -> str:
    if database.is_sqlite:
        return database_url
    return str(request.getfixturevalue("as_role")("reader", "GRANT pg_read_all_data TO reader"))


def refused(url: str, query: str, **bounds: float) -> str:
    with open_reader(url) as reader, pytest.raises(UsageError) as refusal:
        reader.ask(query, **bounds)  # type: ignore[arg-type]
    assert "\n" not in str(refusal.value)
    return str(refusal.value)


def test_endless_statement_ends_at_its_limit(analyst: str) -> None:
    began = time.monotonic()
    assert "no answer within 0.5 s" in refused(analyst, ENDLESS, timeout_s=0.5)
    assert time.monotonic() - began < 30


@pytest.mark.parametrize(
    "query",
    [
        "SELECT pg_sleep(1e9)",
        "SELECT set_config('statement_timeout', '0', false), pg_sleep(1e9)",
        "SELECT set_config('statement_timeout', '0', true) FROM (SELECT pg_sleep(1e9)) AS slept",
        "SELECT pg_advisory_lock(1), pg_sleep(1e9)",
    ],
)
@on_postgresql
def test_sleep_ends_at_the_limit_too(analyst: str, query: str) -> None:
    assert "no answer within 0.5 s" in refused(analyst, query, timeout_s=0.5)


def test_answer_of_too_many_rows_is_refused_and_not_cut(analyst: str) -> None:
    many = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 50) SELECT i FROM n"
    assert "more than 49 rows; put a LIMIT on it" in refused(analyst, many, most_rows=49)
    with open_reader(analyst) as reader:
        assert len(reader.ask(many, most_rows=50).rows) == len(reader.ask(many, most_rows=0).rows) == 50


def test_giant_rows_are_refused(analyst: str, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("catalog.reader.MOST_BYTES", 10**6)
    word = "replace(hex(zeroblob({0})), '00', 'x')" if database.is_sqlite else "repeat('x', {0})"
    series = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 50) SELECT {0} FROM n"
    assert "MiB of text" in refused(analyst, series.format(word.format(100_000)))
    refused(analyst, f"SELECT {word.format(2_000_000)}")
    if database.is_sqlite:
        assert "too big" in refused(analyst, "SELECT zeroblob(1000000000)")


@pytest.mark.parametrize(
    "query",
    [
        "SELECT writefile('{folder}/new', 'x')",
        "SELECT readfile('/etc/passwd')",
        "SELECT edit('x')",
        "SELECT fts3_tokenizer('simple', x'0102030405060708')",
        "SELECT * FROM pragma_database_list",
        "SELECT * FROM pragma_journal_mode('delete')",
        "EXPLAIN SELECT 1; ATTACH '{folder}/new' AS x",
        "ATTACH 'file:{folder}/new?mode=rwc' AS x",
        "CREATE VIRTUAL TABLE temp.x USING fts5(y)",
        "REINDEX",
        "ANALYZE",
        "SAVEPOINT x",
        "DETACH main",
    ],
)
@on_sqlite
def test_sqlite_opens_no_file_and_changes_nothing(database_url: str, tmp_path: Path, query: str) -> None:
    before = (tmp_path / "kosmograph.db").read_bytes()
    refused(database_url, query.format(folder=tmp_path))
    assert (tmp_path / "kosmograph.db").read_bytes() == before
    assert not (tmp_path / "new").exists()


ATTACKS = [
    "SELECT pg_read_file('/etc/passwd')",
    "SELECT pg_ls_dir('/')",
    "SELECT lo_import('/etc/passwd')",
    "SELECT lo_from_bytea(0, 'x')",
    "SELECT lo_create(0)",
    "COPY (SELECT 1) TO '{folder}/new'",
    "COPY (SELECT 1) TO PROGRAM 'touch {folder}/new'",
    "COPY jobs FROM PROGRAM 'echo'",
    "SELECT set_config('transaction_read_only', 'off', true), query_to_xml('DELETE FROM jobs', true, false, '')",
    "SELECT query_to_xml('DELETE FROM jobs', true, false, '')",
    "SELECT set_config('role', 'postgres', false)",
    "SELECT set_config('session_authorization', 'postgres', false)",
    "SELECT 1; SELECT 2",
    "SELECT * FROM jobs FOR UPDATE",
    "SELECT nextval('jobs_id_seq')",
    "SELECT pg_reload_conf()",
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'postgres' AND state <> ''",
    "EXPLAIN ANALYZE DELETE FROM jobs",
    "SET ROLE postgres",
    "LISTEN x",
]


@pytest.mark.parametrize("query", ATTACKS)
@on_postgresql
def test_postgresql_role_without_privileges_can_only_read(analyst: str, tmp_path: Path, query: str) -> None:
    refused(analyst, query.format(folder=tmp_path))
    assert not (tmp_path / "new").exists()


@on_postgresql
def test_owner_of_the_tables_changes_nothing_either(database: Database, as_role: Any, tmp_path: Path) -> None:
    tables = [f"ALTER TABLE {name} OWNER TO owner_of_it" for name in ("jobs", "chunks", "recipes", "alembic_version")]
    url = as_role("owner_of_it", *tables, "GRANT CREATE ON SCHEMA public TO owner_of_it")
    for query in [*ATTACKS, "DELETE FROM jobs", "SELECT 1; DROP TABLE jobs", "DROP TABLE jobs", "COMMIT", "ROLLBACK"]:
        refused(url, query.format(folder=tmp_path))
    with database.read() as connection:
        assert connection.execute(text("SELECT COUNT(*) FROM jobs")).scalar() == 0
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    "role", ["postgres", "pg_read_server_files", "pg_write_server_files", "pg_execute_server_program"]
)
@on_postgresql
def test_member_of_a_role_that_reaches_the_server_is_refused(as_role: Any, role: str) -> None:
    """Also where the rights are not inherited: a statement could take them, half way through."""
    url = as_role(
        "climber",
        "ALTER ROLE climber NOINHERIT",
        f"GRANT {role} TO climber",
        "GRANT SELECT ON ALL TABLES IN SCHEMA public TO climber",
    )
    assert "use a role that only reads" in refused(url, "SELECT set_config('role', 'postgres', false), pg_sleep(0)")


def test_limits_are_options_of_the_command(kosmograph: Any, sqlite_template: Path) -> None:
    db = ("--db", f"sqlite:///{sqlite_template}")
    run = kosmograph("sql", ENDLESS, "--timeout", "0.3", *db)
    assert (run.code, len(run.err.splitlines())) == (2, 1)
    assert "--timeout" in run.err
    run = kosmograph("sql", "SELECT 1 UNION SELECT 2", "--limit", "1", *db)
    assert (run.code, "--limit" in run.err) == (2, True)
    assert len(json.loads(kosmograph("sql", "SELECT 1 UNION SELECT 2", "--format", "json", *db).out)) == 2


@on_postgresql
def test_role_that_may_not_even_read_is_told_in_one_line(as_role: Any) -> None:
    with pytest.raises(SetupError, match=r"^[^\n]*permission denied for table alembic_version; check the role[^\n]*$"):
        open_reader(as_role("stranger"))
