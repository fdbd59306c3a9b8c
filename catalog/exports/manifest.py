"""The manifest of an export: what it is, of what, what was left out, and each file's size and hash.

It is JSON with a file a line, so that a million of them are written, and read, one by one.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

MANIFEST = "manifest.json"
OURS = '{\n  "kosmograph":'
AT_ONCE = 2**20


def write_manifest(path: Path, about: Mapping[str, Any]) -> int:
    """Write it, with all files that lie in its folder; how many bytes these have. They are on the disk then."""
    head = json.dumps({"kosmograph": _version(), **about}, indent=2)
    total = 0
    with path.open("w") as file:
        file.write(head.removesuffix("\n}") + ',\n  "files": [')
        for number, (name, place) in enumerate(_files(path.parent, path)):
            size, digest = _digest(place)
            total += size
            line = json.dumps({"path": name, "bytes": size, "sha256": digest})
            file.write(f"{',' if number else ''}\n    {line}")
        file.write("\n  ]\n}\n")
        file.flush()
        os.fsync(file.fileno())
    return total


def listed_files(path: Path) -> Iterator[str]:
    """The names in a manifest of ours; none where it is another's file of that name."""
    with path.open(errors="replace") as file:
        if file.read(len(OURS)) != OURS:
            return
        for line in file:
            if line.startswith('    {"path": '):
                yield json.loads(line.rstrip(",\n"))["path"]


def _files(folder: Path, manifest: Path) -> Iterator[tuple[str, Path]]:
    for place, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            path = Path(place, name)
            if path != manifest:
                yield path.relative_to(folder).as_posix(), path


def _digest(path: Path) -> tuple[int, str]:
    """Bytes and sha256 of a file, or of what a link leads to."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
        if not path.is_symlink():
            os.fsync(file.fileno())
        return file.tell(), digest.hexdigest()


def _version() -> str:
    from importlib.metadata import version

    return version("kosmograph")
