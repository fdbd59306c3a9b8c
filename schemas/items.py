"""An item: one image to be annotated, as a listing gave it and as a chunk holds it."""

import hashlib
import json
from collections.abc import Iterable
from typing import NamedTuple

_ENCODE = json.JSONEncoder(separators=(",", ":")).encode


class Item(NamedTuple):
    """A URI with the version that the listing saw ("" where the source gives none) and the size in bytes, if known.

    `input` is what it brings to prompts beside the image (see schemas/inputs.py).
    """

    uri: str
    version: str = ""
    size: int | None = None
    input: str = ""

    @property
    def image(self) -> tuple[str, str]:
        """What is loaded once, however many items name it."""
        return self.uri, self.version


def image_key(uri: str, version: str) -> bytes:
    """16 bytes that stand for `(uri, version)`: an index holds them whatever the length of the URI."""
    return hashlib.blake2b(f"{uri}\0{version}".encode("utf-8", "surrogatepass"), digest_size=16).digest()


def pack_items(items: Iterable[Item]) -> str:
    """Items as compact JSON: `[[uri, version, size], …]`, in ASCII, so that any file name survives any database.

    The input is the fourth where there is one.
    """
    return _ENCODE([item if item.input else item[:3] for item in items])


def unpack_items(packed: str) -> list[Item]:
    """The items of `pack_items`."""
    return [Item(*fields) for fields in json.loads(packed)]
