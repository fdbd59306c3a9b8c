"""Parquet files that are written row by row, in row groups of a bounded size."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from schemas.errors import SetupError

ROWS_A_GROUP = 5_000


def pyarrow() -> Any:
    """The library. Raises SetupError where it is not installed."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise SetupError("Parquet needs pyarrow: pip install 'kosmograph[export]'") from None
    return pyarrow


class Rows:
    """Rows on their way into a file."""

    def __init__(self, writer: Any, schema: Any) -> None:
        self._writer = writer
        self._schema = schema
        self._rows: list[Mapping[str, Any]] = []

    def add(self, row: Mapping[str, Any]) -> None:
        self._rows.append(row)
        if len(self._rows) == ROWS_A_GROUP:
            self.flush()

    def flush(self) -> None:
        if self._rows:
            self._writer.write_table(pyarrow().Table.from_pylist(self._rows, schema=self._schema))
            self._rows = []


@contextmanager
def parquet_rows(path: Path, schema: Any) -> Iterator[Rows]:
    """Takes rows by column name; the file is whole when the block ends."""
    arrow = pyarrow()
    with path.open("wb") as file, arrow.parquet.ParquetWriter(file, schema, compression="zstd") as writer:
        rows = Rows(writer, schema)
        yield rows
        rows.flush()
