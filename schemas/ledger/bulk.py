"""Bulk statements that SQLite and PostgreSQL share.

Their texts are compiled once, and many values travel as one: JSON to SQLite, the text of an array to PostgreSQL.
SQLAlchemy's own way through each statement and each value takes longer than the databases do.
"""

import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import islice
from typing import Any, TypeVar

from sqlalchemy import (
    BindParameter,
    Connection,
    CursorResult,
    Dialect,
    Executable,
    LargeBinary,
    Select,
    Table,
    Text,
    bindparam,
    func,
    select,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError
from sqlalchemy.types import TypeEngine

T = TypeVar("T")
Answer = CursorResult[*tuple[Any, ...]]

VALUES: BindParameter[Any] = bindparam("values", expanding=True)
OTHERS: BindParameter[Any] = bindparam("others", expanding=True)
"""Stand in a statement's `IN` for lists that `run` is given."""
_IN = re.compile(r"(NOT )?IN \(__\[POSTCOMPILE_(\w+?)(?:~~.*?)?\]\)")


def insert_into(dialect: str, table: Table) -> Any:
    """The dialect's INSERT, which knows ON CONFLICT."""
    return sqlite.insert(table) if dialect == "sqlite" else postgresql.insert(table)


def do_nothing(insert: Any) -> Any:
    """Leaves alone the rows whose unique keys are there."""
    return insert.on_conflict_do_nothing()


@dataclass(frozen=True, eq=False)
class Rows:
    """An INSERT of many rows, given as tuples of `columns`, in the order that they have in the table.

    `computed` are columns whose values the database finds. Rows come sorted by key, or two writers could deadlock.
    """

    table: Table
    columns: tuple[str, ...]
    on_conflict: Callable[[Any], Any] = do_nothing
    computed: Mapping[str, Any] = field(default_factory=dict)
    returning: tuple[str, ...] = ()

    def insert(self, connection: Connection, rows: Sequence[tuple[Any, ...]]) -> Answer | None:
        """On PostgreSQL what was written, by `returning`; SQLite cannot tell."""
        if not rows:
            return None
        sql = _insert_of(self, connection.dialect)
        if connection.dialect.name == "sqlite":
            connection.exec_driver_sql(sql, list(rows))
            return None
        types = (self.table.c[name].type for name in self.columns)
        arrays = map(_array, types, zip(*rows, strict=True))
        return connection.exec_driver_sql(sql, dict(zip(self.columns, arrays, strict=True)))


@dataclass(frozen=True, eq=False)
class KeyedRows:
    """Rows with an id, of which the first columns are a unique key. `ids_of` selects keys and ids of some of them."""

    rows: Rows
    key: int
    ids_of: Select[Any]

    def insert(
        self, connection: Connection, rows: Sequence[tuple[Any, ...]], values: Collection[Any]
    ) -> tuple[dict[Any, int], Callable[[int], bool]]:
        """The ids by key, now that all of them are there, and whether an id was not there before.

        `values` are those of `ids_of`, which is asked only where some were there already.
        """
        if not rows:
            return {}, bool
        if connection.dialect.name == "sqlite":
            before = self._last_id(connection)
            self.rows.insert(connection, rows)
            # nobody else writes, and SQLite numbers rows one by one
            if self._last_id(connection) - before == len(rows):
                return {self._key(row): before + n for n, row in enumerate(rows, start=1)}, before.__lt__
            return self._found(connection, values), before.__lt__
        written = self.rows.insert(connection, rows)
        assert written is not None
        ids = {self._key(row): row[-1] for row in written}
        is_new = frozenset(ids.values()).__contains__
        return (ids if len(ids) == len(rows) else self._found(connection, values)), is_new

    def _key(self, row: Sequence[Any]) -> Any:
        return row[0] if self.key == 1 else tuple(row[: self.key])

    def _found(self, connection: Connection, values: Collection[Any]) -> dict[Any, int]:
        return {self._key(row): row[-1] for row in rows_where(connection, self.ids_of, values)}

    def _last_id(self, connection: Connection) -> int:
        last = connection.exec_driver_sql(f"SELECT MAX(id) FROM {self.rows.table.name}").scalar()
        return int(last or 0)


def copy_rows(connection: Connection, rows: Rows, values: Sequence[tuple[Any, ...]]) -> None:
    """Add rows whose keys nobody else can have: on PostgreSQL by COPY, which is faster the more there are."""
    if not values or connection.dialect.name == "sqlite":
        rows.insert(connection, values)
        return
    sql = f"COPY {rows.table.name} ({', '.join(rows.columns)}) FROM STDIN"
    driver = connection.dialect.loaded_dbapi
    try:
        with connection.connection.cursor() as cursor, cursor.copy(sql) as copy:  # type: ignore[attr-defined]
            for row in values:
                copy.write_row(row)
    except driver.Error as error:
        raise DBAPIError.instance(sql, None, error, driver.Error, hide_parameters=True) from error


def run(connection: Connection, statement: Executable, **parameters: Any) -> Answer:
    """Execute a statement that lives as long as the program does: its text is compiled once and kept.

    Rows come as the driver gives them: truth is 0 or 1 on SQLite.
    """
    sql, order, given = _compiled(connection.dialect, statement)
    is_sqlite = order is not None
    lists = {name: _packed(value, is_sqlite) for name, value in parameters.items() if isinstance(value, list)}
    every = {**given, **parameters, **lists}
    return connection.exec_driver_sql(sql, every if order is None else tuple(map(every.__getitem__, order)))


def rows_where(
    connection: Connection, statement: Select[Any], values: Iterable[Any], **parameters: Any
) -> Iterable[Sequence[Any]]:
    """The rows of a SELECT that has `IN VALUES`, for these values."""
    some = list(values)
    return run(connection, statement, values=some, **parameters) if some else ()


def batches(values: Iterable[T], size: int) -> Iterator[list[T]]:
    """The values in lists of `size`, the last one shorter."""
    iterator = iter(values)
    while some := list(islice(iterator, size)):
        yield some


def plain(text: str) -> str:
    """The text as every database can hold it: PostgreSQL has no NUL, and no half of a surrogate pair is UTF-8."""
    if text.isascii():
        return text.replace("\0", "\ufffd") if "\0" in text else text
    return text.replace("\0", "\ufffd").encode("utf-16", "surrogatepass").decode("utf-16", "replace")


@cache
def _compiled(dialect: Dialect, statement: Executable) -> tuple[str, Sequence[str] | None, dict[str, Any]]:
    """The text, the order of its parameters (None where they have names), and those that it brings itself."""
    compiled = statement.compile(dialect=dialect)  # type: ignore[attr-defined]
    as_list = r"\1IN (SELECT value FROM json_each(?))" if dialect.name == "sqlite" else _any_of
    return _IN.sub(as_list, str(compiled)), compiled.positiontup, dict(compiled.params)


def _any_of(found: re.Match[str]) -> str:
    return f"{'<> ALL' if found[1] else '= ANY'} (%({found[2]})s)"


@cache
def _insert_of(rows: Rows, dialect: Dialect) -> str:
    insert = insert_into(dialect.name, rows.table)
    if dialect.name == "sqlite":
        whole = rows.on_conflict(insert.values(dict(rows.computed)))
        compiled = whole.compile(dialect=dialect, column_keys=list(rows.columns))
        assert list(compiled.positiontup) == list(rows.columns), "columns come in the order of the table"
        return str(compiled)
    arrays = [bindparam(name, type_=postgresql.ARRAY(rows.table.c[name].type)) for name in rows.columns]
    new = func.unnest(*arrays).table_valued(*rows.columns, name="new").render_derived()
    source = select(*(new.c[name] for name in rows.columns), *rows.computed.values())
    whole = rows.on_conflict(insert.from_select([*rows.columns, *rows.computed], source))
    return str(whole.returning(*(rows.table.c[name] for name in rows.returning)).compile(dialect=dialect))


def _packed(values: list[Any], is_sqlite: bool) -> str:
    if is_sqlite:
        return json.dumps(values)
    return _array(Text() if values and isinstance(values[0], str) else None, values)


def _array(type_: TypeEngine[Any] | None, values: Sequence[Any]) -> str:
    """The values as the text of a PostgreSQL array."""
    if isinstance(type_, Text):
        return "{" + ",".join(["NULL" if value is None else _quoted(value) for value in values]) + "}"
    if isinstance(type_, LargeBinary):
        return "{" + ",".join([f'"\\\\x{value.hex()}"' for value in values]) + "}"
    return "{" + repr(list(values))[1:-1].replace("None", "NULL") + "}"


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
