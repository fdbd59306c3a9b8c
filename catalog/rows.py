"""CSV as every tool reads it, its lines ended by a newline alone."""

import csv
from collections.abc import Iterable
from typing import Any


class CsvText:
    """Calls give the CSV of some cells, without the end of a line: `"a, b",1.5`."""

    def __init__(self) -> None:
        # what stands in the line's end is quoted within a cell, as readers take a lone \r for an end too
        self._writer = csv.writer(self, lineterminator="\r\n")
        self._text = ""

    def __call__(self, cells: Iterable[Any]) -> str:
        self._writer.writerow(cells)
        return self._text

    def write(self, line: str) -> None:
        """What `csv.writer` calls."""
        self._text = line[:-2]
