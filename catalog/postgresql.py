"""PostgreSQL, for reading."""

import re
from typing import Any

from catalog.reader import (
    MOST_ROWS,
    TIMEOUT_S,
    Answer,
    Interrupted,
    Reader,
    answer_of,
    bounded,
    columns_of,
    first_line,
    refusal,
    too_long,
)
from schemas.errors import SetupError, UsageError


class PostgresqlReader(Reader):
    """A session whose one transaction is read-only, as a role that may do nothing but read.

    The tables' owner can change nothing either, but may end the pipeline's own sessions (`pg_terminate_backend`), which
    come back: analysts have a role of their own.
    """

    dialect = "postgresql"
    _explain = "EXPLAIN (FORMAT TEXT)"

    def __init__(self, url: str) -> None:
        from sqlalchemy.exc import DBAPIError

        from schemas.database import Database

        self._database = Database(url)
        from psycopg import Error  # which is there: the database has looked

        try:
            self._connection = self._database.engine.raw_connection().driver_connection
        except (DBAPIError, Error) as error:
            said = first_line(getattr(error, "orig", error))
            raise SetupError(f"{self} does not answer: {said}") from None
        self._connection.read_only = True

    def __str__(self) -> str:
        return str(self._database)

    def has_tables(self) -> bool:
        return self.select("SELECT to_regclass('alembic_version')").rows != [(None,)]

    def _select(self, query: str, values: dict[str, Any]) -> Answer:
        from psycopg import Error
        from psycopg.errors import QueryCanceled

        try:
            return answer_of(self._connection.execute(re.sub(r":(\w+)", r"%(\1)s", query), values))
        except Error as error:
            if isinstance(error, QueryCanceled) and self._interrupted:
                raise Interrupted from None
            raise SetupError(f"{self} cannot be read: {first_line(error)}; check the role and its rights") from None

    def step_by_step(self) -> None:
        settings = (f"set_config('{name}', '{value}', true)" for name, value in _STEP_BY_STEP.items())
        self.select(f"SELECT {', '.join(settings)}")

    def expected(self, table: str, condition: str, values: dict[str, Any]) -> float:
        """How many rows fulfil a condition, as the planner has it from its statistics."""
        query = f"EXPLAIN (FORMAT JSON) SELECT 1 FROM {table} WHERE {condition}"
        (((plan,),),) = self.select(query, values).rows
        return float(plan["Plan"]["Plan Rows"])

    def ask(self, query: str, *, timeout_s: float = TIMEOUT_S, most_rows: int = MOST_ROWS) -> Answer:
        from psycopg import Error
        from psycopg.errors import QueryCanceled

        if self.select(_POWERS).rows:
            raise UsageError(
                "sql does not work as a superuser, or as a member of one or of pg_read_server_files and its like, who "
                "reach files and programs of the server even in a read-only transaction; use a role that only reads: "
                "CREATE ROLE analyst LOGIN IN ROLE pg_read_all_data"
            )
        # the clock of a statement starts with it: changed within, the setting counts for the next, and there is none
        self.select("SELECT set_config('statement_timeout', :ms, false)", {"ms": str(round(timeout_s * 1000))})
        cursor = self._connection.cursor()
        try:
            # row by row, and by the protocol that takes one statement and no second one behind a semicolon
            rows = cursor.stream(query)
            found = bounded(rows, most_rows)
            return Answer(columns_of(cursor), found)
        except QueryCanceled:
            raise too_long(timeout_s) from None
        except Error as error:
            raise refusal(error) from None

    def _cancel(self) -> None:
        self._connection.cancel_safe()

    def _steps(self, plan: Answer) -> list[str]:
        return [row[0] for row in plan.rows]

    def rest(self) -> None:
        from psycopg import Error

        try:
            super().rest()
        except Error as error:
            raise SetupError(f"{self} does not answer: {first_line(error)}") from None

    def close(self) -> None:
        super().close()
        self._database.close()


_STEP_BY_STEP = {
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "enable_hashagg": "off",
    "max_parallel_workers_per_gather": "0",
    "jit": "off",
}
_POWERS = """
    SELECT 1 FROM pg_roles WHERE pg_has_role(session_user, oid, 'MEMBER') AND (rolsuper OR rolname IN
    ('pg_read_server_files', 'pg_write_server_files', 'pg_execute_server_program')) LIMIT 1
"""
"""What a role is or can become, by `set_config('role', …)` in the middle of a statement."""
