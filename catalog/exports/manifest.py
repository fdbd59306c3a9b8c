"""The manifest of an export: what it is, of what, what was left out, and each file's size and hash.

It is JSON with a file a line, so that a million of them are written, and read, one by one. Of a link it says where it
leads: what lies there is no file of ours, and may be gone.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

MANIFEST = "manifest.json"
OURS = '{\n  "kosmograph":'
UNFINISHED = "an export was replacing these files when it was cut off: export again with --force"
SYNCED = 100
"""So many files are sent to the disk one by one; with more of them, all together, which is a hundred times as fast."""


def write_manifest(path: Path, about: Mapping[str, Any]) -> int:
    """Write it, with all files that lie in its folder; how many bytes these have. They are on the disk then."""
    total = 0

    def told() -> Iterator[dict[str, Any]]:
        nonlocal total
        for number, name in enumerate(names_in(path.parent)):
            if name != path.name:
                one = _told(path.parent / name, sync=number < SYNCED)
                total += one.get("bytes", 0)
                yield {"path": name, **one}
        if number >= SYNCED:
            os.sync()

    _write(path, about, told())
    return total


def write_unfinished(path: Path, names: Iterable[str]) -> None:
    """Write what stands in the place of the manifest while these files are being replaced: the export can be forced."""
    _write(path, {"unfinished": UNFINISHED}, ({"path": name} for name in names))


def _write(path: Path, about: Mapping[str, Any], files: Iterable[Mapping[str, Any]]) -> None:
    head = json.dumps({"kosmograph": _version(), **about}, indent=2)
    with path.open("w") as file:
        file.write(head.removesuffix("\n}") + ',\n  "files": [')
        for number, one in enumerate(files):
            file.write(f"{',' if number else ''}\n    {json.dumps(one)}")
        file.write("\n  ]\n}\n")
        file.flush()
        os.fsync(file.fileno())


def listed_files(path: Path) -> Iterator[str]:
    """The names in a manifest of ours; none where it is another's file of that name."""
    with path.open(errors="replace") as file:
        if file.read(len(OURS)) != OURS:
            return
        for line in file:
            if line.startswith('    {"path": '):
                yield json.loads(line.rstrip(",\n"))["path"]


def unlisted_file(folder: Path, manifest: Path) -> str | None:
    """A name in a folder that its manifest of ours does not list, or None: both are walked through in one order."""
    listed = listed_files(manifest) if manifest.is_file() else iter(())
    ours: str | None = ""
    for name in names_in(folder):
        while ours is not None and _place(ours) < _place(name):
            ours = next(listed, None)
        if name not in (ours, manifest.name):
            return name
    return None


def names_in(folder: Path) -> Iterator[str]:
    """The names of all files and links below a folder: those of a folder first, then those of the folders in it."""
    for place, folders, names in os.walk(folder):
        folders.sort()
        links = [name for name in folders if os.path.islink(os.path.join(place, name))]
        for name in sorted([*names, *links]):
            yield Path(place, name).relative_to(folder).as_posix()


def _place(name: str) -> list[tuple[bool, str]]:
    """By this `names_in` is sorted."""
    *folders, last = name.split("/")
    return [*((True, folder) for folder in folders), (False, last)]


def _told(path: Path, *, sync: bool) -> dict[str, Any]:
    """Bytes and sha256 of a file, which with `sync` is on the disk then; of a link, where it leads."""
    if path.is_symlink():
        return {"link": str(path.readlink())}
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
        if sync:
            os.fsync(file.fileno())
        return {"bytes": file.tell(), "sha256": digest.hexdigest()}


def _version() -> str:
    from importlib.metadata import version

    return version("kosmograph")
