"""`sql`: an answer as a table, CSV, JSON or Parquet."""

import sys

from catalog.reader import MOST_ROWS, TIMEOUT_S, Answer
from kosmograph.control import open_database
from kosmograph.output import say, say_csv, say_json, say_table
from schemas.errors import UsageError

FORMATS = ("table", "csv", "json", "parquet")


def ask(
    query: str,
    output: str,
    db: str | None,
    *,
    timeout_s: float = TIMEOUT_S,
    most_rows: int = MOST_ROWS,
    explain: bool = False,
) -> int:
    """Print the answer to a query, or with `explain` the database's plan for it; the exit code."""
    if output not in FORMATS:
        raise UsageError(f"unknown format {output!r}; formats are {', '.join(FORMATS)}")
    if output == "parquet" and sys.stdout.isatty():
        raise UsageError("parquet is not for a terminal; send it to a file: --format parquet > out.parquet")
    with open_database(db) as reader:
        if explain:
            answer = reader.explain(query, timeout_s=timeout_s)
        else:
            answer = reader.ask(query, timeout_s=timeout_s, most_rows=most_rows)
    if output == "table" and explain:
        for (step,) in answer.rows:
            say(step)
    elif output == "table":
        say_table(answer.columns, answer.rows)
    elif output == "csv":
        say_csv(answer.columns, answer.rows)
    elif output == "json":
        _require_names(answer, output)
        say_json(answer.records)
    else:
        _require_names(answer, output)
        _write_parquet(answer)
    return 0


def _require_names(answer: Answer, output: str) -> None:
    """Raises UsageError where two columns have one name: JSON would lose one, and few readers of Parquet take both."""
    for number, name in enumerate(answer.columns):
        if name in answer.columns[:number]:
            raise UsageError(f"two columns are called {name}, which {output} cannot hold; name them with AS")


def _write_parquet(answer: Answer) -> None:
    from catalog.exports.arrow import pyarrow as load

    pyarrow = load()
    columns = zip(*answer.rows, strict=True) if answer.rows else [[] for _ in answer.columns]
    try:
        table = pyarrow.table([pyarrow.array(list(column)) for column in columns], names=list(answer.columns))
        pyarrow.parquet.write_table(table, pyarrow.PythonFile(sys.stdout.buffer, mode="w"))
    except (pyarrow.ArrowInvalid, pyarrow.ArrowTypeError, pyarrow.ArrowNotImplementedError) as error:
        raise UsageError(f"the answer is not for parquet: {error}; give each column one type, with CAST") from None
