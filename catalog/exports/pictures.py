"""The pictures of an export: their bytes as they are stored, read ahead by some threads."""

import hashlib
import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from catalog.exports.base import Ids, Work, extension, image_name
from catalog.records import Record
from schemas.errors import ImageFailure, UsageError
from schemas.uris import path_of, scheme_of

THREADS = 8
AHEAD = 16
"""Pictures that are in memory at once."""
IMAGES_A_FOLDER = 1_000
"""More in one folder make some tools, and people, wait."""


@dataclass(frozen=True, slots=True)
class _Lost:
    """Why a picture cannot be had."""

    why: str
    message: str


def pictured(records: Iterable[Record], work: Work, *, once: bool) -> Iterator[tuple[Record, bytes]]:
    """The records with the bytes of their pictures; `once`: b"" but for the first record of an image.

    A record whose picture cannot be read, or is another one than was annotated, is left out, and told to `work`. Where
    no pictures are wanted none is read, and every record has b"".
    """
    if work.options.images == "none":
        yield from ((record, b"") for record in records)
        return
    seen, lost = Ids(), Ids()
    for record, read in _read_ahead(records, work, seen if once else None):
        found = read.result() if read else b""
        if isinstance(found, bytes) and record.image_id not in lost:
            yield record, found
            continue
        lost.add(record.image_id)
        why = found if isinstance(found, _Lost) else _Lost("unreadable", "as said of this image above")
        work.lose(record, why.why, why.message)


def _read_ahead(
    records: Iterable[Record], work: Work, seen: Ids | None
) -> Iterator[tuple[Record, Future[bytes | _Lost] | None]]:
    pool = ThreadPoolExecutor(THREADS, thread_name_prefix="pictures")
    waiting: deque[tuple[Record, Future[bytes | _Lost] | None]] = deque()
    try:
        for record in records:
            is_wanted = seen is None or seen.add(record.image_id)
            waiting.append((record, pool.submit(_read, record, work) if is_wanted else None))
            if len(waiting) == AHEAD:
                yield waiting.popleft()
        yield from waiting
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _read(record: Record, work: Work) -> bytes | _Lost:
    try:
        data = work.fetch(record.uri)
    except ImageFailure as failure:
        return _Lost(failure.code, failure.message)
    if hashlib.sha256(data).hexdigest() != record.sha256:
        return _Lost("changed", "it is another picture by now than the one that was annotated")
    return data


class Shelves:
    """A folder of an export in which each image has a place of its own, a thousand in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._made = Ids()

    def place(self, record: Record, ending: str) -> Path:
        """The path of an image's file, in a folder that is there."""
        number = record.image_id // IMAGES_A_FOLDER
        folder = self._folder / f"{number:06}"
        if self._made.add(number):
            folder.mkdir(parents=True)
        return folder / f"{image_name(record)}.{ending}"

    def put(self, record: Record, data: bytes, *, link: bool) -> Path:
        """Put its picture there, or a link to it. Raises UsageError for a link to what is no local file."""
        path = self.place(record, extension(record))
        if not link:
            path.write_bytes(data)
        elif scheme_of(record.uri) == "file":
            os.symlink(path_of(record.uri), path)
        else:
            raise UsageError(f"{record.uri} is no local file to link to; --images copy fetches it, none leaves it out")
        return path
