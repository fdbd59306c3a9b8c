"""Numbers and tables as Markdown."""

from collections.abc import Iterator, Mapping
from typing import Any

Figures = Mapping[str, Any]
DATABASES = {"sqlite": "SQLite", "postgresql": "PostgreSQL"}


def number(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def share(value: float | None) -> str:
    return "–" if value is None else f"{value:.0%}"


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> Iterator[str]:
    yield "| " + " | ".join(head) + " |"
    yield "|" + "---|" * len(head)
    for row in rows:
        yield "| " + " | ".join(row) + " |"
