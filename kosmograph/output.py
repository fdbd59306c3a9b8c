"""What commands print on standard output: lines, tables and JSON, safe for a terminal."""

import json
import shlex
import sys
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from catalog.rows import CsvText
from schemas.environment import database_url
from schemas.uris import printable

if TYPE_CHECKING:
    from schemas.settings import Settings


LEAST_TEXT = 6
"""Characters that a column of words is left, before numbers are broken to fit the terminal."""


def say(line: str) -> None:
    """One line."""
    print(printable(line))  # noqa: T201


def warn(line: str) -> None:
    """One line on standard error: for people, and not part of the answer."""
    print(f"kosmograph: {printable(line)}", file=sys.stderr)  # noqa: T201


def say_json(document: Any) -> None:
    """One JSON document; dates and other values as text."""
    text = json.dumps(document, indent=2, ensure_ascii=False, default=_plain)
    shown = (c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] for c in text)
    print(text if text.replace("\n", "").isprintable() else "".join(shown))  # noqa: T201


def say_csv(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """CSV with a header, as spreadsheets and pandas read it: the values as they are, but on a terminal."""
    shown = (lambda value: printable(str(value))) if sys.stdout.isatty() else str
    text = CsvText()
    print(text(shown(name) for name in columns))  # noqa: T201
    for row in rows:
        print(text(value if value is None else shown(_plain(value)) for value in row))  # noqa: T201


def say_table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """A table that fits the terminal; whole values where the output is no terminal."""
    from rich import box
    from rich.cells import cell_len
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    rows = [list(row) for row in rows]
    cells = [[_cell(value) for value in row] for row in rows]
    widths = [
        max(map(cell_len, (name, *column))) for name, *column in zip(map(printable, columns), *cells, strict=True)
    ]
    numbers = [all(value is None or _is_number(value) for value in column) for column in zip(*rows, strict=True)]
    console = Console(highlight=False, width=None if sys.stdout.isatty() else max(80, sum(widths) + 3 * len(widths)))
    least = sum(width if whole else LEAST_TEXT for width, whole in zip(widths, numbers, strict=False))
    fits = least + 3 * len(widths) <= console.width
    for name, whole in zip(columns, numbers or [False] * len(columns), strict=True):
        table.add_column(Text(printable(name)), overflow="fold", no_wrap=whole and fits)
    for row, texts in zip(rows, cells, strict=True):
        shown = zip(texts, map(_is_number, row), strict=True)
        table.add_row(*[Text(text, justify="right" if number else "left") for text, number in shown])
    console.print(table)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4g}"
    return printable(str(_plain(value)))


def _plain(value: Any) -> Any:
    """The value in types that JSON and CSV know: PostgreSQL sums to Decimal, and hashes are bytes."""
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, bytes):
        return value.hex()
    return value if isinstance(value, str | int | float) else str(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | Decimal) and not isinstance(value, bool)


def believed(score: float | None, trust: float | None, doubts: str | None) -> str:
    """`  score 0.85  trust 0.90  doubts: repeated`, as far as it is known of a box."""
    figures = "".join(f"  {name} {v:.2f}" for name, v in (("score", score), ("trust", trust)) if v is not None)
    return figures + (f"  doubts: {printable(doubts.replace(',', ', '))}" if doubts else "")


def db_option(settings: "Settings") -> str:
    """` --db URL` for a command to be typed, if it needs one. A server's URL may hold a password, and is left out."""
    if settings.db == database_url(None):
        return ""
    return f" --db {shlex.quote(settings.db)}" if settings.db.startswith("sqlite") else " --db URL"


def duration(seconds: float) -> str:
    """`42 s`, `7 min`, `3 h 20 min`, `3 days 4 h`, `90 days`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    if minutes < 2 * 24 * 60:
        return f"{minutes // 60} h {minutes % 60} min"
    days, hours = divmod(round(minutes / 60), 24)
    return f"{days:,} days {hours} h" if hours else f"{days:,} days"
