"""What commands print on standard output: lines, tables and JSON, safe for a terminal."""

import csv
import io
import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from schemas.uris import printable


def say(line: str) -> None:
    """One line."""
    print(line)  # noqa: T201


def say_json(document: Any) -> None:
    """One JSON document; dates and other values as text."""
    say(json.dumps(document, indent=2, ensure_ascii=False, default=str))


def say_table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """A table that fits the terminal; whole values where the output is no terminal."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in columns:
        table.add_column(name, overflow="fold")
    widest = 0
    for row in rows:
        cells = [_cell(value) for value in row]
        widest = max(widest, sum(len(cell) + 3 for cell in cells))
        table.add_row(
            *[
                Text(cell, justify="right" if _is_number(value) else "left")
                for cell, value in zip(cells, row, strict=True)
            ]
        )
    width = None if sys.stdout.isatty() else max(80, widest, sum(len(name) + 3 for name in columns) + 40)
    Console(highlight=False, width=width).print(table)


def csv_text(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """CSV with a header, as spreadsheets and pandas read it."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return text.getvalue()


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4g}"
    return printable(str(value))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
