"""Sources of images: from what a person names to items, as a stream that can go on from a cursor."""

import os
import re
import stat
import sys
from collections.abc import Sequence
from pathlib import Path

from producer.sources.cells import Columns
from producer.sources.disk import FileSource, FolderSource
from producer.sources.filters import Filters, Glob, Skip
from producer.sources.manifest import STDIN, ManifestSource, forget_spools, spool, spooled
from producer.sources.source import Listed, Source
from producer.sources.web import UrlSource
from schemas.errors import SourceError, UsageError
from schemas.items import Item
from schemas.storage import ALLOW_HTTP, StorageOptions, s3_client
from schemas.uris import absolute_uri, file_uri, has_secrets, masked, path_of, printable, scheme_of, split_s3, storable

__all__ = ["Columns", "Filters", "Item", "Listed", "Skip", "Source", "StorageOptions", "forget_spools", "open_sources"]

_MAGIC = re.compile(r"[*?[]")


def open_sources(
    specs: Sequence[str], filters: Filters, storage: StorageOptions, spool_dir: Path, columns: Columns | None = None
) -> list[Source]:
    """The sources that the texts name, each tried: what cannot be listed is known before a job begins.

    With `columns`, all of them must be manifests that have these. Raises UsageError for what is written wrongly,
    SourceError for what is not there or may not be read.
    """
    if specs.count("-") > 1:
        raise UsageError("standard input (-) can be named once")
    if columns:
        return [_manifest_with(columns, spec, filters) for spec in specs]
    return [_open(spec, filters, storage, spool_dir) for spec in specs]


def _manifest_with(columns: Columns, spec: str, filters: Filters) -> Source:
    if not spec.startswith("@"):
        name = next(iter(columns.values()))[0]
        raise UsageError(f"column:{name} is that of a manifest, and {printable(masked(spec))} is none: name @list.csv")
    _refuse_secrets(spec)
    return _manifest(spec[1:], filters, columns)


def _open(spec: str, filters: Filters, storage: StorageOptions, spool_dir: Path) -> Source:
    if not spec:
        raise UsageError("a source is empty; name a file, a folder, a glob, s3://bucket/prefix, @manifest or -")
    if spec == "-" or re.fullmatch("stdin:[0-9a-f]{16}", spec):
        return _standard_input(spec, filters, spool_dir)
    _refuse_secrets(spec)
    if spec.startswith("@"):
        return _manifest(spec[1:], filters)
    scheme = scheme_of(spec)
    if scheme == "s3":
        return _s3(spec, filters, storage)
    if scheme in ("http", "https"):
        return _url(spec, storage)
    if scheme not in ("", "file"):
        raise UsageError(f"{scheme}://: unknown scheme; name a path, s3://bucket/prefix or @manifest")
    return _disk(_path(spec), filters)


def _refuse_secrets(spec: str) -> None:
    if has_secrets(spec.removeprefix("@")):  # which are not repeated here
        raise UsageError("a source holds no user, password or signature, as it is stored and shown; name it without")


def _tried(source: Source, when_empty: str = "") -> Source:
    """The source, once its first name was asked for."""
    if next(iter(source.list()), None) is None and when_empty:
        raise SourceError(when_empty)
    return source


def _path(text: str) -> str:
    """The absolute path of a path or a `file:` URI."""
    try:
        path = os.fspath(path_of(text)) if scheme_of(text) == "file" else text
    except ValueError as error:
        raise UsageError(str(error)) from None
    return "/" + os.path.abspath(path).lstrip("/")


def _spec(path: str) -> str:
    """The path as text that every database can hold."""
    return path if storable(path) else file_uri(path)


def _disk(path: str, filters: Filters) -> Source:
    try:
        mode = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return _glob(path, filters)
    except OSError as error:
        raise SourceError(f"{printable(path)}: {error.strerror}; check its permissions") from None
    if stat.S_ISDIR(mode):
        return _tried(FolderSource(path, _spec(path), filters))
    if stat.S_ISREG(mode):
        return _tried(FileSource(path, _spec(path)))
    raise SourceError(f"{printable(path)} is neither a file nor a folder; name an image or a folder of images")


def _glob(path: str, filters: Filters) -> Source:
    """The files that a pattern names. A part that exists as it is written is a name, brackets and all."""
    if os.path.lexists(path):
        raise SourceError(f"{printable(path)} is a broken link; make it point at a file or a folder")
    if not _MAGIC.search(path):
        raise SourceError(f"{printable(path)}: no such file or folder; check the path")
    base, parts = "/", path.strip("/").split("/")
    while parts and (not _MAGIC.search(parts[0]) or os.path.lexists(os.path.join(base, parts[0]))):
        base = os.path.join(base, parts.pop(0))
    if not os.path.isdir(base):
        raise SourceError(f"{printable(base)}: no such folder; check the pattern {printable(path)}")
    source = FolderSource(base, _spec(path), filters, Glob("/".join(parts)))
    return _tried(source, f"{printable(path)}: no file matches; for folders within folders write photos/**/*.jpg")


def _manifest(text: str, filters: Filters, columns: Columns | None = None) -> Source:
    if not text or scheme_of(text) not in ("", "file"):
        raise UsageError(f"@{printable(text)}: a manifest is a file on disk; download it and name it as @file")
    path = _path(text)
    return _tried(ManifestSource(Path(path), "@" + _spec(path), filters, columns=columns))


def _s3(spec: str, filters: Filters, storage: StorageOptions) -> Source:
    from producer.sources.s3 import S3Source  # botocore is slow to import, and disks do without

    try:
        bucket, prefix = split_s3(spec)
    except ValueError as error:
        raise UsageError(f"{error}; a source is s3://bucket/prefix") from None
    source = S3Source(s3_client(storage), bucket, prefix, filters)
    nothing = f"{printable(spec)}: no key begins so; check the prefix (patterns go into --include)"
    return _tried(source, nothing if prefix else "")


def _url(spec: str, storage: StorageOptions) -> Source:
    if not storage.allow_http:
        raise UsageError(f"reading from the web is off: {ALLOW_HTTP} switches it on; download the images otherwise")
    if not storable(spec):
        raise UsageError(f"{printable(spec)}: no database holds such a URL; percent-encode it")
    return UrlSource(absolute_uri(spec, "/"))


def _standard_input(spec: str, filters: Filters, spool_dir: Path) -> Source:
    if spec == "-":
        if sys.stdin.isatty():
            raise UsageError("standard input is a terminal; pipe URIs in: find photos | kosmograph annotate -")
        try:
            spec = STDIN + spool(sys.stdin.buffer, spool_dir, Path.cwd())
        except OSError as error:
            raise SourceError(f"cannot keep standard input in {spool_dir}: {error.strerror}; make room there") from None
    path = spooled(spool_dir, spec.removeprefix(STDIN))
    if not path.is_file():
        raise SourceError(f"{spec}: what was read from standard input is gone; pipe it in again with -")
    return _tried(ManifestSource(path, spec, filters, root=Path.cwd()))
