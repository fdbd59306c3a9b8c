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
from itertools import chain, islice, repeat
from pathlib import Path
from typing import BinaryIO

from producer.sources.cells import Columns, inputs_of
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

Rows = Iterator[tuple[int, object, Sequence[object]]]
"""Each with its number from 1, which is its cursor, what stands in the column of URIs, and in those that were named."""


class ManifestSource:
    """The URIs that a file lists, in its order; relative paths are relative to the folder it lies in.

    Include and exclude patterns match a row as it is written, without its scheme; extensions are not looked at.
    Files that it names are read below `root`, by default its folder: whoever wrote the list is not trusted with more.
    With `columns`, a row may have several items (see producer/sources/cells.py): its cursor then counts them.
    """

    def __init__(
        self, path: Path, spec: str, filters: Filters, root: Path | None = None, columns: Columns | None = None
    ) -> None:
        self.spec = spec
        self._columns = columns or {}
        self._names = list(dict.fromkeys(chain.from_iterable(self._columns.values())))
        self.roots: Sequence[str] = (str(root or path.parent),)
        self._path = path
        self._folder = os.fspath(path.parent)
        self._filters = filters
        self._read = _reader(path)

    def list(self, after: str | None = None) -> Iterator[Listed]:
        row, _, items = (after or "0").partition(".")
        done = int(items or 0)  # of the row after those that are whole
        whole = int(row) - bool(done)
        try:
            for number, value, cells in self._read(self._path, whole, self._names):
                if number > whole:
                    found = self._look(value)
                    if not self._columns or isinstance(found, Skip):
                        yield listed(str(number), found)
                    else:
                        some = self._items(number, found, cells)
                        yield from islice(some, done if number == whole + 1 else 0, None)
        except (OSError, EOFError, zlib.error) as error:
            why = getattr(error, "strerror", None) or "the file is damaged"
            raise SourceError(f"cannot read the manifest {printable(str(self._path))}: {why}; check it") from None

    def _items(self, number: int, item: Item, cells: Sequence[object]) -> Iterator[Listed]:
        """Those of a row, which brings them in these cells."""
        inputs = inputs_of(dict(zip(self._names, cells, strict=True)), self._columns)
        for count, brought in enumerate(inputs, start=1):
            yield Listed(f"{number}.{count}", item._replace(input=brought))

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


def _reader(path: Path) -> Callable[[Path, int, Sequence[str]], Rows]:
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


def _text_rows(path: Path, after: int, columns: Sequence[str]) -> Rows:
    if columns:
        raise SourceError(f"{printable(str(path))} has no columns; one per image needs .csv, .jsonl or .parquet")
    with _open(path) as file:
        for number, line in _text_rows_of(file, printable(str(path))):
            yield number, line, ()


def _csv_rows(path: Path, after: int, columns: Sequence[str]) -> Rows:
    """The names of columns mean the same in small letters, and without spaces around them."""
    name = printable(str(path))
    with _open(path) as file:
        reader = csv.reader(_lines(file, name), strict=True)
        try:
            header = [column.strip().lower() for column in next(reader, [])]
            _require(header, [COLUMN, *(column.strip().lower() for column in columns)], name)
            place, *places = (header.index(column.strip().lower()) for column in (COLUMN, *columns))
            for number, row in enumerate(reader, start=1):
                if row:
                    cells = [row[at] if at < len(row) else None for at in places] if places else ()
                    yield number, row[place] if place < len(row) else None, cells
        except csv.Error as error:
            raise SourceError(f"{name}, line {reader.line_num}: broken CSV ({error}); repair the line") from None


def _json_rows(path: Path, after: int, columns: Sequence[str]) -> Rows:
    name = printable(str(path))
    first = True
    with _open(path) as file:
        for number, line in enumerate(_lines(file, name), start=1):
            if line.strip() and (first or number > after):
                row = _json_object(line, f"{name}, line {number}")
                if first:
                    _require(list(row), [COLUMN, *columns], name)
                    first = False
                yield number, row.get(COLUMN), [row.get(column) for column in columns]


def _json_object(line: str, place: str) -> dict[str, object]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        raise SourceError(f"{place}: broken JSON; repair the line") from None
    if not isinstance(row, dict):
        raise SourceError(f'{place}: not a JSON object; a line is like {{"uri": "photos/a.jpg"}}')
    return row


def _parquet_rows(path: Path, after: int, columns: Sequence[str]) -> Rows:
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
            _require(file.schema_arrow.names, [COLUMN, *columns], name)
            for batch in file.iter_batches(batch_size=PARQUET_ROWS, columns=list({COLUMN, *columns})):
                if number + batch.num_rows > after:
                    uris, *cells = (batch.column(column).to_pylist() for column in (COLUMN, *columns))
                    rows = zip(*cells, strict=True) if cells else repeat(())
                    for at, (uri, brought) in enumerate(zip(uris, rows, strict=False), start=number + 1):
                        yield at, uri, brought
                number += batch.num_rows
    except ArrowException:
        raise SourceError(f"{name} is not a sound Parquet file; write it again") from None


def _require(names: Sequence[str], wanted: Sequence[str], manifest: str) -> None:
    for column in wanted:
        if column not in names:
            found = printable(masked(", ".join(names))[:200]) or "none"  # they may be the first row
            raise SourceError(f"{manifest} has no column {column!r}; {_REMEDY[column == COLUMN]}: {found}")


_REMEDY = {True: "rename one of its columns", False: "those that it has"}
