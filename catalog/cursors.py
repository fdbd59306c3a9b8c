"""Where a search goes on: the last row of a page, as a text that nobody needs to read."""

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from typing import Any

from schemas.errors import UsageError
from schemas.uris import storable


def packed(keys: Sequence[Any]) -> str:
    return urlsafe_b64encode(json.dumps(keys).encode()).decode().rstrip("=")


def unpacked(cursor: str, *kinds: type) -> list[Any]:
    """What `packed` was given, of these kinds; the beginning where there is no cursor."""
    if not cursor:
        return [kind() for kind in kinds]
    try:
        keys = json.loads(urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (ValueError, RecursionError):
        keys = None
    if not isinstance(keys, list) or list(map(type, keys)) != list(kinds) or not all(map(_fits, keys)):
        raise UsageError(f"{cursor!r} is no cursor of this search; take it from the page before")
    return keys


def _fits(key: str | int) -> bool:
    """Whether a database can compare it with its own."""
    return storable(key) if isinstance(key, str) else 0 <= key < 2**63
