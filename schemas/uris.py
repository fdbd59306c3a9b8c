"""URIs: the names of images on every side.

`file:///…` holds the bytes of the path, percent-encoded, so that names which differ by one byte stay distinct and any
name survives any database. `s3://bucket/key` holds the key as it is: `%`, `?` and `#` in it are plain characters.
"""

import os
import re
from pathlib import Path
from urllib.parse import quote_from_bytes, unquote_to_bytes

MOST_ETAG = 200
"""No ETag is as long: one that is comes from a server that means harm."""

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")


def scheme_of(text: str) -> str:
    """The scheme in lower case, or "" for a path."""
    found = _SCHEME.match(text)
    return found[1].lower() if found else ""


def file_uri(path: str | bytes | os.PathLike[str]) -> str:
    """`file:///…` of an absolute path. Raises ValueError for a relative one."""
    name = os.fsencode(path)
    if not name.startswith(b"/"):
        raise ValueError(f"not an absolute path: {printable(os.fsdecode(name))}")
    return "file://" + quote_from_bytes(name)


def path_of(uri: str) -> Path:
    """The path that a `file:///…` URI names. Raises ValueError where it names none on this machine."""
    if scheme_of(uri) != "file":
        raise ValueError(f"not a file: URI: {printable(uri)}")
    host, slash, path = uri[len("file://") :].partition("/")
    if host.lower() not in ("", "localhost") or not slash:
        raise ValueError(f"not a path on this machine: {printable(uri)}; write file:///path")
    name = unquote_to_bytes(os.fsencode("/" + path))
    if b"\0" in name:
        raise ValueError(f"no path holds a NUL: {printable(uri)}")
    return Path(os.fsdecode(name))


def split_s3(uri: str) -> tuple[str, str]:
    """`(bucket, key)`, the key unchanged. Raises ValueError without a bucket."""
    bucket, _, key = uri[len("s3://") :].partition("/") if scheme_of(uri) == "s3" else ("", "", "")
    if not bucket:
        raise ValueError(f"not an s3://bucket/key URI: {printable(uri)}")
    return bucket, key


def absolute_uri(text: str, folder: str | os.PathLike[str]) -> str:
    """The one URI of what a person wrote: a URI, or a path that is relative to `folder`.

    `.` and `..` of a path are resolved as text, like the shell's `cd`. A URI that names nothing here (another scheme,
    `file://elsewhere/…`) comes back as written, for the loader to refuse. Raises ValueError for what no path can be.
    """
    scheme = scheme_of(text)
    if scheme == "s3":
        return "s3://" + text[len("s3://") :]
    if scheme == "file":
        try:
            return _uri_of_path(os.fspath(path_of(text)))
        except ValueError:
            return text
    return text if scheme else _uri_of_path(os.path.join(folder, text))


def _uri_of_path(path: str) -> str:
    if "\0" in path:
        raise ValueError(f"no path holds a NUL: {printable(path)}")
    return file_uri("/" + os.path.abspath(path).lstrip("/"))


def storable(uri: str) -> bool:
    """Whether every database can hold it: no NUL, no half of a surrogate pair."""
    return "\0" not in uri and not any("\ud800" <= character <= "\udfff" for character in uri)


def printable(text: str) -> str:
    r"""The text in one line, safe for a terminal: what cannot be seen is escaped, as in `\x1b`."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def file_version(status: os.stat_result) -> str:
    """The version of a file, from its `stat`: `mtime_ns:size`."""
    return f"{status.st_mtime_ns}:{status.st_size}"


def s3_version(etag: str) -> str:
    """The version of an S3 object: its ETag without the quotes around it, and no more than an ETag may hold."""
    return "".join(character for character in etag.strip('"') if " " <= character <= "~")[:MOST_ETAG]
