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
    for name in columns:
        table.add_column(Text(printable(name)), overflow="fold")
    widths = [len(name) for name in columns]
    for row in rows:
        cells = [_cell(value) for value in row]
        widths = [max(width, cell_len(cell)) for width, cell in zip(widths, cells, strict=True)]
        table.add_row(
            *[
                Text(cell, justify="right" if _is_number(value) else "left")
                for cell, value in zip(cells, row, strict=True)
            ]
        )
    width = None if sys.stdout.isatty() else max(80, sum(widths) + 3 * len(widths))
    Console(highlight=False, width=width).print(table)


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
