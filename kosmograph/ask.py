"""`sql`: an answer as a table, CSV, JSON or Parquet."""

import sys

from catalog.queries import Answer
from catalog.queries import ask as ask_database
from kosmograph.control import open_database
from kosmograph.output import csv_text, say_json, say_table
from schemas.errors import SetupError, UsageError

FORMATS = ("table", "csv", "json", "parquet")


def ask(query: str, output: str, db: str | None) -> int:
    """Print the answer to a query; the exit code."""
    if output not in FORMATS:
        raise UsageError(f"unknown format {output!r}; formats are {', '.join(FORMATS)}")
    answer = ask_database(open_database(db), query)
    if output == "table":
        say_table(answer.columns, answer.rows)
    elif output == "csv":
        sys.stdout.write(csv_text(answer.columns, answer.rows))
    elif output == "json":
        say_json([dict(zip(answer.columns, row, strict=True)) for row in answer.rows])
    else:
        _write_parquet(answer)
    return 0


def _write_parquet(answer: Answer) -> None:
    if sys.stdout.isatty():
        raise UsageError("parquet is not for a terminal; send it to a file: --format parquet > out.parquet")
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise SetupError("parquet needs pyarrow: pip install 'kosmograph[export]'") from None
    columns = zip(*answer.rows, strict=True) if answer.rows else [[] for _ in answer.columns]
    table = pyarrow.table(dict(zip(answer.columns, map(list, columns), strict=True)))
    pyarrow.parquet.write_table(table, pyarrow.PythonFile(sys.stdout.buffer, mode="w"))
