"""The bytes of a URI, with the version that was read. Runs inside the loader's processes.

file:///…         percent-encoded bytes, so that every file name has a URI
s3://bucket/key   the key as it is, never decoded
http(s)://…       where that is allowed, from public servers only (worker/web.py)
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import unquote_to_bytes

from schemas.errors import Code, ImageFailure, PermanentFailure, TransientFailure
from schemas.roots import Roots
from schemas.storage import ALLOW_HTTP, StorageOptions
from schemas.uris import file_version
from worker.images import Limits

if TYPE_CHECKING:
    from worker.s3 import ObjectReader
    from worker.web import WebReader


@dataclass(frozen=True)
class Fetched:
    data: bytes
    version: str  # the ETag without quotes, or mtime_ns:size


class Fetcher:
    """Reads one URI after the other; keeps its connections."""

    def __init__(self, limits: Limits, storage: StorageOptions, roots: Roots | None = None) -> None:
        """`roots` hold the local files that may be read; None: any."""
        self.roots = roots
        self._limits = limits
        self._storage = storage
        self._objects: ObjectReader | None = None
        self._pages: WebReader | None = None

    def fetch(self, uri: str) -> Fetched:
        """The bytes and their version. Raises PermanentFailure or TransientFailure, with the version if known."""
        scheme, separator, rest = uri.partition("://")
        if separator and scheme == "file":
            return read_file(rest, self._limits, self.roots)
        if separator and scheme == "s3":
            bucket, _, key = rest.partition("/")
            return self._object_reader().read(bucket, key)
        if separator and scheme in ("http", "https"):
            return self._web_reader().read(uri)
        raise PermanentFailure(Code.ACCESS_DENIED, "only file://, s3:// and, where it is allowed, http(s):// are read")

    def _object_reader(self) -> ObjectReader:
        if self._objects is None:
            # boto3 costs a quarter of a second and 35 MB, which a folder of files has no use for
            from worker.s3 import ObjectReader

            self._objects = ObjectReader(self._limits, self._storage)
        return self._objects

    def _web_reader(self) -> WebReader:
        if not self._storage.allow_http:
            text = f"reading from the web is off: {ALLOW_HTTP} lets the workers do so, then retry"
            raise PermanentFailure(Code.ACCESS_DENIED, text)
        if self._pages is None:
            from worker.web import WebReader

            self._pages = WebReader(self._limits)
        return self._pages


def read_file(location: str, limits: Limits, roots: Roots | None = None) -> Fetched:
    """The bytes of a regular file, unchanged while they were read. Never blocks on a pipe, a socket or a device."""
    host, slash, rest = location.partition("/")
    path = slash.encode() + unquote_to_bytes(rest.encode(errors="surrogatepass"))
    if host not in ("", "localhost") or not slash or b"\0" in path:
        raise PermanentFailure(Code.NOT_FOUND, "this URI names no file of this machine: file:///PATH is needed")
    try:
        return _read_regular(path, limits, roots)
    except ImageFailure:
        with disk_failures():  # it may be swapped for something else at this very moment
            place = os.path.realpath(path)
        check_place(place, roots)  # of what lies outside it is not even told whether it is there
        raise


def _read_regular(path: bytes, limits: Limits, roots: Roots | None) -> Fetched:
    with disk_failures():
        check_regular(os.stat(path))  # before it is opened, as opening alone has effects on some devices
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
        with open(descriptor, "rb") as file:
            check_inside(file.fileno(), path, roots)
            return _read_unchanged(file, limits)


def _read_unchanged(file: BinaryIO, limits: Limits) -> Fetched:
    before = os.fstat(file.fileno())
    check_regular(before)  # again: it may have been swapped since
    version = file_version(before)
    check_bytes(before.st_size, limits, version)
    data = file.read(before.st_size + 1)
    after = os.fstat(file.fileno())
    if (after.st_mtime_ns, after.st_size) != (before.st_mtime_ns, before.st_size) or len(data) != before.st_size:
        raise TransientFailure(Code.STORAGE_UNAVAILABLE, "the file changed while it was read")
    return Fetched(data, version)


def check_inside(descriptor: int, path: bytes, roots: Roots | None) -> None:
    """Refuses an open file outside the roots: by what was opened, so that no link and no swap leads out of them."""
    if roots is None:
        return
    try:
        place = os.readlink(b"/proc/self/fd/%d" % descriptor)
    except OSError:  # no Linux: what the name leads to now
        place = os.path.realpath(path)
    check_place(place, roots)


def check_place(place: bytes, roots: Roots | None) -> None:
    """Refuses a path without links that leads out of the roots."""
    if roots is not None and not roots.hold(place):
        raise PermanentFailure(
            Code.ACCESS_DENIED,
            "the file lies outside the folders that this job may read; the same command with --root FOLDER adds one,"
            " then retry",
        )


def check_regular(status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        kind = "a folder" if stat.S_ISDIR(status.st_mode) else "a pipe, a socket or a device"
        raise PermanentFailure(Code.NOT_AN_IMAGE, f"not a regular file but {kind}")


def check_bytes(size: int, limits: Limits, version: str = "") -> None:
    if size > limits.max_bytes:
        text = f"{size} bytes or more, over the limit of {limits.max_bytes} (KOSMOGRAPH_MAX_BYTES)"
        raise PermanentFailure(Code.TOO_LARGE, text, version)


def late(timeout_s: float) -> TransientFailure:
    return TransientFailure(Code.TIMEOUT, f"not fetched within {timeout_s:g} s (KOSMOGRAPH_FETCH_TIMEOUT_S)")


@contextmanager
def disk_failures() -> Iterator[None]:
    """Turns an OSError into the failure that it means."""
    try:
        yield
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP):
            text = "no such file" if error.errno == errno.ENOENT else f"no such file: {reason}"
            raise PermanentFailure(Code.NOT_FOUND, text) from None
        if error.errno in (errno.EACCES, errno.EPERM):
            text = "this user may not read the file: see its permissions and those of its folders"
            raise PermanentFailure(Code.ACCESS_DENIED, text) from None
        raise TransientFailure(Code.STORAGE_UNAVAILABLE, f"the file cannot be read now: {reason}") from None
