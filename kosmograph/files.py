"""Files that a command writes: whole or not at all, and where there is a place for them."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from schemas.errors import UsageError


def require_place(path: Path, flag: str) -> None:
    """Before an hour is spent on what goes there. Raises UsageError, which names the flag that says another place."""
    if not path.parent.is_dir():
        raise UsageError(f"there is no folder {path.parent}; make it, or name another with {flag}")
    if path.exists() and not path.is_file():
        raise UsageError(f"{path} is no file that could be replaced; name another with {flag}")


@contextmanager
def written_whole(path: Path) -> Iterator[TextIO]:
    """A text file that gets its name when the block is done, and leaves nothing behind when it fails."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with beside.open("w", encoding="utf-8") as file:
            yield file
        os.replace(beside, path)
    finally:
        with suppress(OSError):
            beside.unlink(missing_ok=True)
