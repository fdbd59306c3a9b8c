"""An item: one image to be annotated, as a listing gave it and as a chunk holds it."""

import hashlib
import json
from collections.abc import Iterable
from typing import NamedTuple

_ENCODE = json.JSONEncoder(separators=(",", ":")).encode


class Item(NamedTuple):
    """A URI with the version that the listing saw ("" where the source gives none) and the size in bytes, if known."""

    uri: str
    version: str = ""
    size: int | None = None


def image_key(uri: str, version: str) -> bytes:
    """16 bytes that stand for `(uri, version)`: an index holds them whatever the length of the URI."""
    return hashlib.blake2b(f"{uri}\0{version}".encode("utf-8", "surrogatepass"), digest_size=16).digest()


def pack_items(items: Iterable[Item]) -> str:
    """Items as compact JSON: `[[uri, version, size], …]`, in ASCII, so that any file name survives any database."""
    return _ENCODE(list(items))


def unpack_items(packed: str) -> list[Item]:
    """The items of `pack_items`."""
    return list(map(Item._make, json.loads(packed)))
