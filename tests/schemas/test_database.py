"""The way to the database: URLs, secrets, transactions, and patience."""

import sqlite3
import threading
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import Connection, make_url, select, text
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError
from sqlalchemy.exc import TimeoutError as NoConnectionFree

from schemas.database import CONNECTIONS, LINK, LOOK_S, Database, is_passing, patiently
from schemas.errors import KosmographError, SetupError, UsageError
from schemas.ledger.bulk import copy_rows
from schemas.ledger.records import ENTITIES
from schemas.tables import unix_now

SECRET = "hunter2"


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://me:{SECRET}@host/night",
        f"postgresql://me@host/night?password={SECRET}",
        f"postgresql://me@host/night?sslpassword={SECRET}&sslmode=require",
        f"postgresql+psycopg2://me:{SECRET}@host:5432/night",
    ],
)
def test_a_database_shows_its_place_without_its_secrets(url: str) -> None:
    database = Database(url)
    assert SECRET not in f"{database} {database!r}"
    assert "host" in str(database)
    assert "night" in str(database)


@pytest.mark.parametrize(
    "url",
    [
        "",
        SECRET,
        f"/folder/{SECRET}.db",
        f"postgresql://me:{SECRET}@host:port/night",
        f"postgresql://me:p@{SECRET}:w@host/night",
        f"mysql://me:{SECRET}@host/night",
        f"postgres://me:{SECRET}@host/night",
        "sqlite://",
        "sqlite:///:memory:",
    ],
)
def test_a_url_that_does_not_fit_is_told_in_one_line_without_its_secrets(url: str) -> None:
    with pytest.raises(UsageError) as caught:
        Database(url)
    message = str(caught.value)
    assert "\n" not in message
    assert SECRET not in message
    assert "sqlite:///FILE" in message


def test_an_sqlite_file_in_a_folder_that_is_not_there_is_told_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r"the folder of the database does not exist: .*/nowhere"):
        Database(f"sqlite:///{tmp_path}/nowhere/k.db")


def test_postgresql_without_its_driver_is_told_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SetupError, match=r"pip install 'kosmograph\[postgres\]'"):
        Database("postgresql://host/night")


def test_opening_connects_to_nothing(tmp_path: Path) -> None:
    Database("postgresql://nobody@127.0.0.1:1/nothing")
    database = Database(f"sqlite:///{tmp_path}/k.db")
    assert database.path == tmp_path / "k.db"
    assert not database.path.exists()


def test_postgresql_has_no_path() -> None:
    assert Database("postgresql://host/night").path is None


def test_an_error_shows_no_values(database: Database) -> None:
    """Values are captions, names, and URIs that may be signed."""
    with pytest.raises(DBAPIError) as caught, database.write() as connection:
        connection.execute(text("INSERT INTO jobs (name) VALUES (:name)"), {"name": SECRET})
    assert "[parameters" not in str(caught.value).replace("[SQL parameters hidden", "")
    assert f"'{SECRET}'" not in str(caught.value)


def test_a_write_commits_when_its_block_ends(database: Database, ledger: Any) -> None:
    ledger.open("night")
    with database.read() as connection:
        assert connection.execute(text("SELECT name FROM jobs")).scalars().all() == ["night"]


def test_a_write_rolls_back_when_its_block_raises(database: Database, ledger: Any) -> None:
    ledger.open("night")
    statements = (text("UPDATE jobs SET name = 'day'"), text("UPDATE nothing SET name = 'day'"))
    with pytest.raises(DBAPIError), database.write() as connection:
        [connection.execute(statement) for statement in statements]
    assert ledger.sql("SELECT name FROM jobs") == [{"name": "night"}]


def test_a_read_sees_one_state_while_others_write(database: Database, ledger: Any) -> None:
    job = ledger.open("night")
    with database.read() as connection:
        before = connection.execute(text("SELECT name, priority FROM jobs")).all()
        ledger.change("UPDATE jobs SET priority = 7")
        assert connection.execute(text("SELECT name, priority FROM jobs")).all() == before
    assert ledger.now(job).priority == 7


def test_writers_on_sqlite_wait_for_one_another(sqlite_template: Path) -> None:
    """A deferred transaction that has read, and then writes, would fail at once instead."""
    database = Database(f"sqlite:///{sqlite_template}")
    counted, start = 25, threading.Barrier(4)
    with database.write() as connection:
        connection.execute(text("CREATE TABLE counter (n INTEGER)"))
        connection.execute(text("INSERT INTO counter VALUES (0)"))

    def count() -> None:
        start.wait()
        for _ in range(counted):
            with database.write() as connection:
                before = connection.execute(text("SELECT n FROM counter")).scalar_one()
                connection.execute(text("UPDATE counter SET n = :n"), {"n": before + 1})

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with database.read() as connection:
        assert connection.execute(text("SELECT n FROM counter")).scalar_one() == 4 * counted
    with database.write() as connection:
        connection.execute(text("DROP TABLE counter"))
    database.close()


def test_foreign_keys_hold_on_both_databases(database: Database) -> None:
    with pytest.raises(IntegrityError), database.write() as connection:
        connection.execute(text("INSERT INTO job_recipes (job_id, recipe_id, ordinal) VALUES (1, 1, 0)"))


def test_the_databases_clock_runs_within_a_transaction(database: Database) -> None:
    with database.write() as connection:
        first = connection.execute(select(unix_now())).scalar_one()
        time.sleep(0.005)
        second = connection.execute(select(unix_now())).scalar_one()
    assert first < second
    assert abs(second - time.time()) < 10


def flaky(*errors: Exception, tries: list[float] | None = None) -> Any:
    """Raises each error once, then answers; notes when it was called."""
    left = list(errors)

    def work() -> str:
        if tries is not None:
            tries.append(time.monotonic())
        if left:
            raise left.pop(0)
        return "done"

    return work


def gone() -> OperationalError:
    return OperationalError("SELECT 1", {}, psycopg.OperationalError("server closed the connection unexpectedly"))


def wrong() -> DBAPIError:
    return IntegrityError("INSERT", {}, sqlite3.IntegrityError("UNIQUE constraint failed: connection.name"))


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses that were made, in a time of its own."""
    made: list[float] = []
    monkeypatch.setattr("time.sleep", made.append)
    monkeypatch.setattr("time.monotonic", lambda: sum(made))
    return made


def test_patience_tries_again_until_the_database_is_back(pauses: list[float]) -> None:
    tries: list[float] = []
    assert patiently(flaky(gone(), gone(), gone(), tries=tries), limit_s=60) == "done"
    assert tries == pytest.approx([0, 0.1, 0.3, 0.7])


def test_connections_that_are_all_in_other_hands_are_waited_for(pauses: list[float]) -> None:
    assert patiently(flaky(NoConnectionFree("QueuePool limit"), gone()), limit_s=60) == "done"
    assert pauses == [0.1, 0.2]


def test_patience_ends_at_its_limit_with_the_last_error(pauses: list[float]) -> None:
    tries: list[float] = []
    with pytest.raises(OperationalError):
        patiently(flaky(*(gone() for _ in range(1000)), tries=tries), limit_s=30)
    assert 24 < tries[-1] == sum(pauses) <= 30
    assert max(later - earlier for earlier, later in pairwise(tries)) == pytest.approx(5)


def test_patience_ends_some_seconds_after_it_is_told_to(pauses: list[float]) -> None:
    """Who is to end still has work in hand, and a server that is started again is there in a moment."""
    with pytest.raises(OperationalError):
        patiently(flaky(*(gone() for _ in range(1000))), limit_s=1e9, stop=lambda: sum(pauses) >= 11.5)
    assert 11.5 + 4 < sum(pauses) <= 11.5 + LOOK_S + 5
    assert patiently(flaky(gone(), gone()), limit_s=60, stop=lambda: True) == "done"


def test_patience_does_not_repeat_what_cannot_succeed(pauses: list[float]) -> None:
    with pytest.raises(IntegrityError):
        patiently(flaky(wrong()), limit_s=60)
    with pytest.raises(KosmographError):
        patiently(flaky(UsageError("no")), limit_s=60)
    assert pauses == []


def test_a_database_that_is_not_there_is_a_passing_trouble() -> None:
    with pytest.raises(OperationalError) as caught, Database("postgresql://nobody@127.0.0.1:1/x").read():
        pass
    assert is_passing(caught.value)


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
@pytest.mark.parametrize(("part", "unknown"), [("database", "nothing_of_the_kind"), ("username", "nobody_of_the_kind")])
def test_a_database_that_refuses_us_is_none(database_url: str, part: str, unknown: str) -> None:
    url = make_url(database_url).set(**{part: unknown})  # type: ignore[arg-type]
    with (
        pytest.raises(OperationalError) as caught,
        Database(url.render_as_string(hide_password=False)).read(),
    ):
        pass
    assert not is_passing(caught.value)


@pytest.mark.parametrize(
    ("said", "passing"),
    [
        ('FATAL:  password authentication failed for user "me"', False),
        ("fe_sendauth: no password supplied", False),
        ('FATAL:  no pg_hba.conf entry for host "10.0.0.1", user "me", database "night", no encryption', False),
        ("FATAL:  the database system is starting up", True),
        ("FATAL:  sorry, too many clients already", True),
        ("consuming input failed: FATAL:  terminating connection due to administrator command", True),
        ("could not translate host name", True),
    ],
)
def test_what_a_server_says_before_it_lets_us_in_tells_whether_to_try_again(said: str, passing: bool) -> None:
    """These come without a state, whoever has spoken."""
    error = OperationalError("SELECT", {}, psycopg.OperationalError(f'connection to server at "db" failed: {said}'))
    assert is_passing(error) == passing


def test_a_statement_that_is_wrong_is_none(database: Database) -> None:
    with pytest.raises(DBAPIError) as caught, database.read() as connection:
        connection.execute(text("SELECT connection FROM nowhere"))
    assert not is_passing(caught.value)


def test_a_locked_sqlite_database_is_a_passing_trouble(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("schemas.database.BUSY_TIMEOUT_S", 0.01)
    database = Database(f"sqlite:///{tmp_path}/k.db")
    with database.write(), pytest.raises(OperationalError) as caught, database.write():
        pass
    assert is_passing(caught.value)
    database.close()


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_a_session_that_the_server_ended_is_outlived(database_url: str, database: Database, ledger: Any) -> None:
    ledger.open("night")
    killer = Database(database_url)
    calls = 0

    def work() -> int:
        nonlocal calls
        calls += 1
        with database.write() as connection:
            pid = connection.execute(text("SELECT pg_backend_pid()")).scalar_one()
            if calls == 1:
                with killer.write() as other:
                    other.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": pid})
            return connection.execute(text("UPDATE jobs SET priority = priority + 1")).rowcount

    assert patiently(work, limit_s=30) == 1
    assert calls == 2
    assert ledger.sql("SELECT priority FROM jobs") == [{"priority": 1}]
    killer.close()


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_a_transaction_that_stands_still_is_ended_by_the_server(database_url: str) -> None:
    """Else the job's row would be held for as long as a worker is stopped, or its machine is off."""
    database = Database(database_url)
    with database.read() as connection:
        names = ("idle_in_transaction_session_timeout", "plan_cache_mode")
        ours = [connection.execute(text(f"SHOW {name}")).scalar_one() for name in names]
    assert ours == ["1min", "force_custom_plan"]
    with pytest.raises(DBAPIError) as caught, database.write() as connection:  # noqa: PT012
        connection.execute(text("SET idle_in_transaction_session_timeout = 50"))
        time.sleep(0.5)
        connection.execute(text("SELECT 1"))
    assert is_passing(caught.value)
    database.close()


def test_a_deadlock_is_a_passing_trouble() -> None:
    error = OperationalError("UPDATE", {}, psycopg.errors.DeadlockDetected("deadlock detected"))
    assert is_passing(error)


def test_a_database_that_was_dropped_is_no_passing_trouble() -> None:
    assert not is_passing(OperationalError("SELECT", {}, psycopg.errors.DatabaseDropped("it is gone")))


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_a_machine_that_does_not_answer_is_given_up_unless_the_url_says_otherwise(database_url: str) -> None:
    for query, expected in ("", LINK["tcp_user_timeout"]), ("&tcp_user_timeout=77", 77):
        database = Database(database_url + query)
        with database.read() as connection:
            info = connection.connection.driver_connection.info  # type: ignore[union-attr]
            assert int(info.get_parameters()["tcp_user_timeout"]) == expected
        database.close()


def test_many_threads_share_few_connections(database: Database) -> None:
    inside, most, lock = 0, 0, threading.Lock()

    def work() -> None:
        nonlocal inside, most
        with database.read() as connection:
            with lock:
                inside += 1
                most = max(most, inside)
            connection.execute(text("SELECT 1"))
            with lock:
                inside -= 1

    threads = [threading.Thread(target=work) for _ in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 1 <= most <= CONNECTIONS


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_idle_connections_that_the_server_has_closed_are_replaced_before_they_are_used(
    database_url: str, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    with database.read() as connection:
        pid = connection.execute(text("SELECT pg_backend_pid()")).scalar_one()
    killer = Database(database_url)
    with killer.write() as other:
        other.execute(text("SELECT pg_terminate_backend(:pid, 10000)"), {"pid": pid})
    killer.close()
    monkeypatch.setattr("schemas.database.ASK_AFTER_S", -1.0)
    with database.read() as connection:
        assert connection.execute(text("SELECT pg_backend_pid()")).scalar_one() != pid


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_a_copy_that_loses_its_server_is_a_passing_trouble(database_url: str, database: Database) -> None:
    killer = Database(database_url)

    def copy(connection: Connection) -> None:
        pid = connection.execute(text("SELECT pg_backend_pid()")).scalar_one()
        with killer.write() as other:
            other.execute(text("SELECT pg_terminate_backend(:pid, 10000)"), {"pid": pid})
        copy_rows(connection, ENTITIES, [(1, 0, "a cat", "cat", 0, 5, None)])

    with pytest.raises(DBAPIError) as caught, database.write() as connection:
        copy(connection)
    assert is_passing(caught.value)
    killer.close()
    with database.read() as connection:
        assert connection.execute(text("SELECT 1")).scalar_one() == 1


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_a_copy_of_what_cannot_be_shows_no_values_and_is_not_repeated(database: Database) -> None:
    with pytest.raises(IntegrityError) as caught, database.write() as connection:
        copy_rows(connection, ENTITIES, [(1, 0, SECRET, SECRET, 0, 5, None, SECRET)])
    assert not is_passing(caught.value)
    assert SECRET not in str(caught.value)
