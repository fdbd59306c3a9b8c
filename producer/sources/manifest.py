"""Lists of URIs: `@manifest` as txt, csv, jsonl or Parquet, and standard input.

A row with any text is an item, also when its URI can never be read (an unknown scheme, a broken `file:` URI): it then
fails under the name that was written, where people look for failures. A row without text, or whose text no database can
hold, is counted as `Skip.UNUSABLE`. A file that is damaged as a whole is a SourceError with the line.
"""

import codecs
import csv
import gzip
import hashlib
import json
import os
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from producer.sources.filters import Filters, Skip
from producer.sources.source import Listed, listed
from schemas.errors import SourceError, UsageError
from schemas.items import Item
from schemas.uris import absolute_uri, masked, printable, scheme_of, storable

COLUMN = "uri"
STDIN = "stdin:"
"""How the spec of standard input begins; what follows is its digest."""
MOST_LINE_BYTES = 2**16
PARQUET_ROWS = 8192

Rows = Iterator[tuple[int, object]]
"""Numbered from 1: the number is the cursor."""


class ManifestSource:
    """The URIs that a file lists, in its order; relative paths are relative to the folder it lies in.

    Include and exclude patterns match a row as it is written, without its scheme; extensions are not looked at.
    Files that it names are read below `root`, by default its folder: whoever wrote the list is not trusted with more.
    """

    def __init__(self, path: Path, spec: str, filters: Filters, root: Path | None = None) -> None:
        self.spec = spec
        self.roots: Sequence[str] = (str(root or path.parent),)
        self._path = path
        self._folder = os.fspath(path.parent)
        self._filters = filters
        self._read = _reader(path)

    def list(self, after: str | None = None) -> Iterator[Listed]:
        done = int(after or 0)
        try:
            for number, value in self._read(self._path, done):
                if number > done:
                    yield listed(str(number), self._look(value))
        except (OSError, EOFError, zlib.error) as error:
            why = getattr(error, "strerror", None) or "the file is damaged"
            raise SourceError(f"cannot read the manifest {printable(str(self._path))}: {why}; check it") from None

    def _look(self, value: object) -> Item | Skip:
        uri = uri_of(value, self._folder)
        if uri is None:
            return Skip.UNUSABLE
        if self._filters.take_all:
            return Item(uri)
        written = str(value)
        path = written.partition("://")[2] if scheme_of(written) else written
        return Item(uri) if self._filters.selects(path) else Skip.FILTERED


def uri_of(value: object, folder: str) -> str | None:
    """The URI of what a row holds, or None where there is nothing that could be tried or stored."""
    if not isinstance(value, str) or not value.strip():
        return None
    try:
        uri = absolute_uri(value, folder)
    except ValueError:
        return None
    return uri if storable(uri) else None


def spool(stream: BinaryIO, folder: Path, base: Path) -> str:
    """Standard input as a manifest of whole URIs in `folder`; the first 16 digits of its sha256, which name it.

    A restart can read it again. Paths are made absolute here: the same lines from another working directory are
    another source.
    """
    folder.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    handle, draft = tempfile.mkstemp(dir=folder, prefix="stdin-")
    try:
        with open(handle, "wb") as file:
            for _, line in _text_rows_of(stream, "standard input"):
                uri = uri_of(line, os.fspath(base))
                whole = (masked(line) if uri is None else uri).encode("utf-8", "surrogateescape") + b"\n"
                digest.update(whole)
                file.write(whole)
        name = digest.hexdigest()[:16]
        os.replace(draft, spooled(folder, name))
    finally:
        Path(draft).unlink(missing_ok=True)
    return name


def forget_spools(specs: Iterable[str], folder: Path) -> None:
    """Removes what was kept of standard input, for sources that have been listed to their end."""
    for spec in specs:
        if spec.startswith(STDIN):
            spooled(folder, spec.removeprefix(STDIN)).unlink(missing_ok=True)


def spooled(folder: Path, name: str) -> Path:
    """Where `spool` put it."""
    return folder / f"stdin-{name}.txt"


def _reader(path: Path) -> Callable[[Path, int], Rows]:
    kind = Path(path.stem).suffix if path.suffix.lower() == ".gz" else path.suffix
    readers = {".txt": _text_rows, ".csv": _csv_rows, ".jsonl": _json_rows, ".parquet": _parquet_rows}
    if kind.lower() not in readers:
        raise UsageError(f"@{printable(str(path))}: a manifest is .txt, .csv, .jsonl (or these as .gz) or .parquet")
    return readers[kind.lower()]


def _open(path: Path) -> BinaryIO:
    return gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb")  # type: ignore[return-value]


def _lines(file: BinaryIO, name: str) -> Iterator[str]:
    """Lines with their ends; bytes that are not UTF-8 stay apart, as in the names of files."""
    first = True
    while line := file.readline(MOST_LINE_BYTES + 1):
        if first and line.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            raise SourceError(f"{name} is in UTF-16; save it as UTF-8")
        if len(line) > MOST_LINE_BYTES:
            raise SourceError(f"{name} has a line of more than {MOST_LINE_BYTES:,} bytes; is it a list of URIs?")
        yield line.removeprefix(codecs.BOM_UTF8 if first else b"").decode("utf-8", "surrogateescape")
        first = False


def _text_rows_of(file: BinaryIO, name: str) -> Iterator[tuple[int, str]]:
    """One URI or path a line, spaces and `#` belonging to it; blank lines are nothing."""
    for number, line in enumerate(_lines(file, name), start=1):
        if line.strip():
            yield number, line.removesuffix("\n").removesuffix("\r")


def _text_rows(path: Path, after: int) -> Rows:
    with _open(path) as file:
        yield from _text_rows_of(file, printable(str(path)))


def _csv_rows(path: Path, after: int) -> Rows:
    name = printable(str(path))
    with _open(path) as file:
        reader = csv.reader(_lines(file, name), strict=True)
        try:
            header = [column.strip().lower() for column in next(reader, [])]
            column = _column(header, name)
            for number, row in enumerate(reader, start=1):
                if row:
                    yield number, row[column] if column < len(row) else None
        except csv.Error as error:
            raise SourceError(f"{name}, line {reader.line_num}: broken CSV ({error}); repair the line") from None


def _json_rows(path: Path, after: int) -> Rows:
    name = printable(str(path))
    first = True
    with _open(path) as file:
        for number, line in enumerate(_lines(file, name), start=1):
            if line.strip() and (first or number > after):
                row = _json_object(line, f"{name}, line {number}")
                if first:
                    _column(list(row), name)
                    first = False
                yield number, row.get(COLUMN)


def _json_object(line: str, place: str) -> dict[str, object]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        raise SourceError(f"{place}: broken JSON; repair the line") from None
    if not isinstance(row, dict):
        raise SourceError(f'{place}: not a JSON object; a line is like {{"uri": "photos/a.jpg"}}')
    return row


def _parquet_rows(path: Path, after: int) -> Rows:
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError:
        raise SourceError("a Parquet manifest needs pyarrow; pip install 'kosmograph[export]'") from None
    name = printable(str(path))
    number = 0
    try:
        # buffered: else pyarrow would hold the column of a whole row group
        with path.open("rb") as data, ParquetFile(data, buffer_size=2**20) as file:
            _column(file.schema_arrow.names, name)
            for batch in file.iter_batches(batch_size=PARQUET_ROWS, columns=[COLUMN]):
                if number + batch.num_rows > after:
                    yield from enumerate(batch.column(0).to_pylist(), start=number + 1)
                number += batch.num_rows
    except ArrowException:
        raise SourceError(f"{name} is not a sound Parquet file; write it again") from None


def _column(names: list[str], manifest: str) -> int:
    if COLUMN not in names:
        found = printable(masked(", ".join(names))[:200]) or "none"  # they may be the first row
        raise SourceError(f"{manifest} has no column {COLUMN!r}; rename one of its columns: {found}")
    return names.index(COLUMN)
