"""URIs: the names of images on every side.

`file:///…` holds the bytes of the path, percent-encoded, so that names which differ by one byte stay distinct and any
name survives any database. `s3://bucket/key` holds the key as it is: `%`, `?` and `#` in it are plain characters.
A URI is stored, and shown to many: whatever secret one holds is replaced by `***`, and it can then not be read.
"""

import os
import re
from pathlib import Path
from urllib.parse import quote_from_bytes, unquote_to_bytes

MOST_ETAG = 200
"""No ETag is as long: one that is comes from a server that means harm."""

SECRET = "***"
_WITHOUT_QUERY = ("s3", "file")

_UNSTORABLE = re.compile("[\0\ud800-\udfff]")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_USER = re.compile(r"(?<=://)[^/?#]*@")
_SIGNATURE = re.compile(
    r"(?i)(?<=[?&;])((?:x-(?:amz|goog)-)?(?:signature|credential|security-token)|awsaccesskeyid|googleaccessid|sig"
    r"|(?:access_?|auth_?|id_?)?token|api_?key|password|passwd|secret)=[^&;#]+"
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
    scheme = scheme_of(text)
    if scheme in ("s3", "http", "https"):
        return scheme + _without_secrets(text, scheme)[len(scheme) :]
    if scheme == "file":
        try:
            return _uri_of_path(os.fspath(path_of(text)))
        except ValueError:
            return _without_secrets(text, scheme)
    return _without_secrets(text, scheme) if scheme else _uri_of_path(os.path.join(folder, text))


def has_secrets(uri: str) -> bool:
    """Whether it holds a user, a password, or the signature of a presigned URL, or once did."""
    return bool(_USER.search(uri) or (scheme_of(uri) not in _WITHOUT_QUERY and _SIGNATURE.search(uri)))


def _without_secrets(uri: str, scheme: str) -> str:
    hidden = _USER.sub(f"{SECRET}@", uri, count=1) if "@" in uri else uri
    return hidden if scheme in _WITHOUT_QUERY else _SIGNATURE.sub(rf"\1={SECRET}", hidden)


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
