"""Cells of a manifest: what a row brings to the prompts of its image."""

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain

from schemas.inputs import pack_input
from schemas.recipes import REGION
from schemas.regions import region_text

Columns = Mapping[str, Sequence[str]]
"""The columns that bring values of each field."""


def inputs_of(cells: Mapping[str, object], columns: Columns) -> Iterator[str]:
    """The inputs of a row's items, given its cells by column.

    A cell holds one value or a list of them: there are as many items as the longest list has values, and a shorter one
    repeats its last. A cell without a usable value brings "", which fails where it is asked for: no row is lost.
    """
    values = {
        field: list(chain.from_iterable(_values(cells.get(name), field) for name in names))
        for field, names in columns.items()
    }
    for number in range(max(map(len, values.values()))):
        yield pack_input({field: some[min(number, len(some) - 1)] for field, some in values.items()})


def _values(cell: object, field: str) -> list[str]:
    if isinstance(cell, str) and cell.lstrip().startswith("["):
        cell = _parsed(cell)
    if not isinstance(cell, list) or (field == REGION and all(_is_number(one) for one in cell)):
        return [_text(cell, field)]
    return [_text(one, field) for one in cell] or [""]


def _parsed(cell: str) -> object:
    """What the text is as JSON; itself where it is none."""
    try:
        return json.loads(cell)
    except (ValueError, RecursionError):
        return cell


def _text(value: object, field: str) -> str:
    """The value as a text; "" for what is none, and has none."""
    if field == REGION:
        return _region(value)
    if _is_number(value):
        return str(value)
    return value.strip() if isinstance(value, str) else ""


def _region(value: object) -> str:
    """The same text for the same box, however it is written; what is no box stays as it was, for the worker to name."""
    numbers = value.split(",") if isinstance(value, str) else value
    if not isinstance(numbers, list):
        return _text(value, "")
    try:
        return region_text(map(float, numbers))
    except (TypeError, ValueError, OverflowError):
        return value.strip() if isinstance(value, str) else json.dumps(value)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
