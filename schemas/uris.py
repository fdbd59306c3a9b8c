"""URIs: the names of images on every side.

`file:///…` holds the bytes of the path, percent-encoded, so that names which differ by one byte stay distinct and any
name survives any database. `s3://bucket/key` holds the key as it is: `%`, `?` and `#` in it are plain characters.
A URI is stored, and shown to many: whatever secret one holds is replaced by `***`, and it can then not be read.
"""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote_from_bytes, unquote_to_bytes

MOST_ETAG = 200
"""No ETag is as long: one that is comes from a server that means harm."""

SECRET = "***"
_PLAIN = ("s3", "file")
"""Schemes whose keys and paths have neither user nor query: `@` and `?` in them are plain characters."""

_UNSTORABLE = re.compile("[\0\ud800-\udfff]")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_FIRST_USER = re.compile(r"(\A[^/]*//)[^/?#]*(@)")
_USER = re.compile(r"(?i)((?:https?:|[a-z0-9+.-]:/)/+)[^/?#]*(@)")
_SIGNATURE = re.compile(
    r"(?i)([?&;#](?:[\w.%-]*(?:signature|credentials?|token|secret|password|passwd|accessid|(?:api|auth)[_-]?key"
    r"|access[_-]?key(?:[_-]?id)?)|(?:[\w.%-]*[_.-])?(?:sig|sign|auth|authorization|jwt|hmac|pwd|hdnea|hdnts|hdntl))_*=)"
    r"[^&;#]+()"
)


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
    `file://elsewhere/…`) comes back as written but for its secrets, for the loader to refuse. Raises ValueError for
    what no path can be.
    """
    scheme, shown = scheme_of(text), masked(text)
    if scheme in ("s3", "http", "https"):
        return scheme + shown[len(scheme) :]
    if scheme == "file":
        try:
            return _uri_of_path(os.fspath(path_of(text)))
        except ValueError:
            return shown
    return shown if scheme else _uri_of_path(os.path.join(folder, shown))


def has_secrets(uri: str) -> bool:
    """Whether it holds a user, a password, or the signature of a presigned URL, or once did."""
    return any(secret.search(uri) for secret in _secrets_of(uri))


def masked(text: str) -> str:
    """The text with `***` for what is secret in its URLs."""
    for secret in _secrets_of(text):
        text = secret.sub(rf"\g<1>{SECRET}\g<2>", text)
    return text


def _secrets_of(text: str) -> Sequence[re.Pattern[str]]:
    """What finds the secrets in a text: also in a URL with a space, a quote or other words before it."""
    if ":/" not in text or not ("@" in text or "=" in text):
        return ()
    return (_FIRST_USER,) if scheme_of(text) in _PLAIN else (_USER, _SIGNATURE)


def _uri_of_path(path: str) -> str:
    if "\0" in path:
        raise ValueError(f"no path holds a NUL: {printable(path)}")
    return file_uri("/" + os.path.abspath(path).lstrip("/"))


def storable(uri: str) -> bool:
    """Whether every database can hold it: no NUL, no half of a surrogate pair."""
    return not _UNSTORABLE.search(uri)


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
