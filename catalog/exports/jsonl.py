"""JSON Lines: an image under a recipe a line."""

from collections.abc import Iterable

from catalog.exports.base import Work, document, to_json
from catalog.records import Record


def write(records: Iterable[Record], work: Work) -> None:
    with work.path.open("w") as file:
        for record in records:
            file.write(to_json(document(record)) + "\n")
            work.wrote(record)
