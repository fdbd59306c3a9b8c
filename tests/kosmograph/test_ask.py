"""`sql`: reads, in four formats, and cannot write."""

import csv
import hashlib
import io
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import make_url, text

from catalog.reader import open_reader
from kosmograph.ask import ask
from schemas.database import Database
from schemas.errors import SetupError, UsageError
from schemas.ledger import jobs

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def url(database: Database, database_url: str, new_job: Callable[..., jobs.Job]) -> Iterator[str]:
    """A database with a job, as an analyst reaches it: on PostgreSQL, as a role that only reads."""
    new_job(database, caption="a 50% snowman: big")
    if database.is_sqlite:
        yield database_url
        return
    with database.write() as connection:
        connection.execute(text("CREATE ROLE analyst LOGIN IN ROLE pg_read_all_data"))
    yield make_url(database_url).set(username="analyst").render_as_string(hide_password=False)
    with database.write() as connection:
        connection.execute(text("DROP ROLE analyst"))


def content(database: Database) -> str:
    """A hash of all that is in the tables."""
    with database.read() as connection:
        names = ("jobs", "chunks", "images", "contents", "annotations", "entities", "boxes", "outcomes", "recipes")
        rows = [connection.execute(text(f"SELECT * FROM {name} ORDER BY 1, 2, 3")).all() for name in names]
    return hashlib.sha256(repr(rows).encode()).hexdigest()


def test_every_format_has_every_row(url: str, capsys: Capture) -> None:
    query = "SELECT uri, caption, NULL AS nil, 1.5 AS number FROM captions"
    ask(query, "table", url)
    assert "An image of a 50% snowman: big" in capsys.readouterr().out
    ask(query, "csv", url)
    (row,) = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert row == {"uri": "s3://job/1.jpg", "caption": "An image of a 50% snowman: big", "nil": "", "number": "1.5"}
    ask(query, "json", url)
    (row,) = json.loads(capsys.readouterr().out)
    assert row | {"caption": ""} == {"uri": "s3://job/1.jpg", "caption": "", "nil": None, "number": 1.5}


def test_sums_are_numbers(url: str, capsys: Capture) -> None:
    ask("SELECT SUM(images) AS n FROM progress", "json", url)
    assert json.loads(capsys.readouterr().out) == [{"n": 2}]


def test_parquet_goes_to_a_file(cli: Any, url: str, tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow.parquet")
    code = f"from kosmograph.ask import ask; ask('SELECT uri, width FROM captions', 'parquet', {url!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert pyarrow.read_table(io.BytesIO(done.stdout)).to_pylist() == [{"uri": "s3://job/1.jpg", "width": 640}]


@pytest.mark.parametrize("output", ["json", "parquet"])
def test_two_columns_of_one_name_are_refused_where_one_would_be_lost(url: str, output: str) -> None:
    query = "SELECT a.uri, b.uri FROM captions a JOIN captions b ON a.image_id = b.image_id"
    with pytest.raises(UsageError, match=r"two columns are called uri.*name them with AS"):
        ask(query, output, url)


def test_percent_colons_and_quotes_are_the_querys_own(url: str, capsys: Capture) -> None:
    ask(
        "SELECT caption, ':name' AS a, '%s %(x)s' AS b FROM captions WHERE caption LIKE '%50\\%%' ESCAPE '\\'",
        "csv",
        url,
    )
    assert capsys.readouterr().out.splitlines()[1] == "An image of a 50% snowman: big,:name,%s %(x)s"


WRITES = [
    "DELETE FROM jobs",
    "INSERT INTO jobs (name) VALUES ('mine')",
    "UPDATE jobs SET state = 'cancelled'",
    "DROP TABLE jobs",
    "CREATE TABLE mine (x INTEGER)",
    "CREATE TEMP TABLE mine (x INTEGER)",
    "SELECT 1; DROP VIEW captions",
    "COMMIT; DROP VIEW captions",
    "ROLLBACK",
    "VACUUM",
    "WITH gone AS (DELETE FROM jobs RETURNING 1) SELECT * FROM gone",
    "",
]
SQLITE = [
    "ATTACH DATABASE '{folder}/new.db' AS new",
    "VACUUM INTO '{folder}/new.db'",
    "PRAGMA query_only = OFF",
    "PRAGMA journal_mode = DELETE",
    "PRAGMA user_version = 7",
    "SELECT load_extension('{folder}/new.so')",
    "BEGIN IMMEDIATE",
]
POSTGRESQL = [
    "COPY jobs TO '{folder}/new.db'",
    "COPY (SELECT 1) TO PROGRAM 'touch {folder}/new.db'",
    "SELECT pg_read_file('/etc/passwd')",
    "SELECT lo_import('/etc/passwd')",
    "SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE",
    "DO $$ BEGIN DELETE FROM jobs; END $$",
    "SELECT set_config('transaction_read_only', 'off', true)",
]


@pytest.mark.parametrize("query", [*WRITES, *SQLITE, *POSTGRESQL])
def test_what_is_no_reading_is_refused_in_one_line_and_changes_nothing(
    database: Database, url: str, tmp_path: Path, query: str
) -> None:
    if query in (POSTGRESQL if database.is_sqlite else SQLITE):
        pytest.skip("a statement of the other database")
    before = content(database)
    with pytest.raises(UsageError) as refused:
        ask(query.format(folder=tmp_path), "table", url)
    assert "\n" not in str(refused.value)
    assert content(database) == before
    assert not list(tmp_path.glob("new*"))


def test_plan_says_how_and_not_what(database: Database, url: str, capsys: Capture) -> None:
    ask("SELECT uri FROM captions WHERE image_id = 1 ORDER BY created_at", "table", url, explain=True)
    shown = capsys.readouterr().out
    assert "s3://" not in shown
    assert "ix_outcomes_image_id" in shown or not database.is_sqlite
    assert "TEMP B-TREE FOR ORDER BY" in shown or "Sort Key" in shown
    ask("SELECT uri FROM captions", "json", url, explain=True)
    assert [row.keys() for row in json.loads(capsys.readouterr().out)][:1] == [{"plan"}]


def test_step_of_a_plan_stands_below_what_it_serves(url: str) -> None:
    with open_reader(url) as reader:
        nested = "SELECT 1 FROM jobs WHERE id IN (SELECT job_id FROM outcomes GROUP BY job_id HAVING COUNT(*) > 3)"
        steps = [row[0] for row in reader.explain(nested).rows]
    depths = [len(step) - len(step.lstrip()) for step in steps]
    assert depths[0] == 0
    assert max(depths) > 0


@pytest.mark.parametrize("query", [*WRITES, *SQLITE, *POSTGRESQL, "ANALYZE SELECT 1", "(ANALYZE) SELECT 1"])
def test_plan_of_what_is_no_reading_is_refused_or_only_a_plan(
    database: Database, url: str, tmp_path: Path, query: str
) -> None:
    if query in (POSTGRESQL if database.is_sqlite else SQLITE):
        pytest.skip("a statement of the other database")
    before = content(database)
    only_read_when_run = query.startswith("SELECT ") and ";" not in query and not database.is_sqlite
    with suppress(UsageError) if only_read_when_run else pytest.raises(UsageError, match=r"^[^\n]+$"):
        ask(query.format(folder=tmp_path), "table", url, explain=True)
    assert content(database) == before
    assert not list(tmp_path.glob("new*"))


def test_plan_runs_nothing(url: str) -> None:
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT COUNT(*) FROM n"
    with open_reader(url) as reader:
        assert reader.explain(endless, timeout_s=20).rows


def test_logarithm_is_there_in_any_build_of_sqlite(database: Database, url: str) -> None:
    with open_reader(url) as reader:
        ((one, none),) = reader.ask("SELECT LN(EXP(1.0)), LN(NULL)").rows
    assert (float(one), none) == (pytest.approx(1), None)


def test_wrong_sql_is_one_line(url: str) -> None:
    with pytest.raises(UsageError, match=r"^the database says: [^\n]*captoins[^\n]*$"):
        ask("SELECT * FROM captoins", "table", url)


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_superuser_is_refused_with_the_remedy(database: Database, database_url: str) -> None:
    with pytest.raises(UsageError, match=r"does not work as a superuser.*CREATE ROLE"):
        ask("SELECT 1", "table", database_url)


def test_unknown_format_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match="unknown format 'xml'; formats are table, csv, json, parquet"):
        ask("SELECT 1", "xml", url)


def test_reader_sees_what_a_killed_writer_has_committed(tmp_path: Path, sqlite_template: Path) -> None:
    path = tmp_path / "kosmograph.db"
    path.write_bytes(sqlite_template.read_bytes())
    code = (
        "import os; from schemas.database import Database; from sqlalchemy import text\n"
        f"with Database('sqlite:///{path}').write() as c: c.execute(text(\"INSERT INTO recipes"
        " (id, hash, task, prompt, model, revision, spec) VALUES (1, 'h', 't', 'p', 'm', 'r', '{}')\"))\n"
        "os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code], check=False)
    with open_reader(f"sqlite:///{path}") as reader:
        assert reader.ask("SELECT task FROM recipes").rows == [("t",)]


def test_database_that_is_not_there_or_no_database_is_told(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r"there is no database at .*none.db; kosmograph annotate FOLDER makes one"):
        open_reader(f"sqlite:///{tmp_path}/none.db")
    (tmp_path / "empty.db").touch()
    with pytest.raises(SetupError, match="holds no Kosmograph tables"):
        open_reader(f"sqlite:///{tmp_path}/empty.db")
    (tmp_path / "text.db").write_text("not a database" * 100)
    with pytest.raises(SetupError, match="cannot be read: file is not a database"):
        open_reader(f"sqlite:///{tmp_path}/text.db")
