"""Files that get their names only once they are whole.

All is written into a folder beside the target, `.NAME.….draft`. When it is done the files are moved to their names;
when it is not, the folder goes, and nothing has ever stood under a final name. Of several files the manifest comes
last, and while they are moved one stands in its place that says so: a manifest with counts is that of the files beside
it. The draft of a process that was killed is removed by the next export to the same target: its lock is free.
"""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from catalog.exports.manifest import MANIFEST, listed_files, unlisted_file, write_unfinished
from schemas.errors import SetupError
from schemas.uris import printable

LOCK = "lock"


@dataclass(frozen=True)
class Target:
    """Where an export goes: a folder, or a file with others beside it."""

    path: Path
    is_folder: bool = False
    beside: tuple[str, ...] = ()

    @property
    def manifest(self) -> str:
        """The name of the manifest: in the folder, or beside the file."""
        return MANIFEST if self.is_folder else f"{self.path.name}.{MANIFEST}"

    @property
    def paths(self) -> list[Path]:
        """All that will be there, the manifest last."""
        if self.is_folder:
            return [self.path]
        names = [self.path.name, *(self.path.name + ending for ending in self.beside), self.manifest]
        return [self.path.with_name(name) for name in names]

    def refuse(self, *, force: bool) -> None:
        """Raises SetupError where something is in the way: with `force`, only what is no export of ours."""
        if not self.path.parent.is_dir():
            raise SetupError(f"there is no folder {self._shown(self.path.parent)} to write to; make it first")
        taken = [path for path in self.paths if os.path.lexists(path) and not _is_empty_folder(path, self.is_folder)]
        if taken and not force:
            raise SetupError(
                f"{self._shown(taken[0])} is there already; --force replaces an export, --out names another"
            )
        if taken and (foreign := self._foreign()):
            raise SetupError(
                f"{self._shown(foreign)} is no part of an export: it stays; remove it, or name another --out"
            )

    def _foreign(self) -> Path | None:
        """What is in the way, and is in no manifest of ours."""
        if not self.is_folder:
            ours = {self.manifest, *self.replaced()}
            return next((path for path in self.paths if os.path.lexists(path) and path.name not in ours), None)
        if self.path.is_symlink() or not self.path.is_dir():
            return self.path
        name = unlisted_file(self.path, self.path / self.manifest)
        return None if name is None else self.path / name

    def replaced(self) -> list[str]:
        """The names that the old manifest of a file lists: its own, and those that begin with it."""
        manifest = self.path.with_name(self.manifest)
        listed = listed_files(manifest) if manifest.is_file() else ()
        return [name for name in listed if name.startswith(self.path.name) and "/" not in name]

    @staticmethod
    def _shown(path: Path) -> str:
        return printable(str(path))


@dataclass(frozen=True)
class Draft:
    """A folder for what will be moved, and one for what will not."""

    target: Target
    folder: Path

    @property
    def out(self) -> Path:
        """The folder of the files: for a target that is a folder, that folder."""
        return self.folder / "out"

    @property
    def path(self) -> Path:
        """What becomes the target."""
        return self.out if self.target.is_folder else self.out / self.target.path.name

    @property
    def scratch(self) -> Path:
        return self.folder / "scratch"

    @property
    def before(self) -> Path:
        """The folder that the target was, while it is being replaced."""
        return self.folder / "before"

    def publish(self, *, force: bool) -> None:
        """Move the files to their names. Raises SetupError where something has come in the way meanwhile."""
        self.target.refuse(force=force)
        if self.target.is_folder:
            if os.path.lexists(self.target.path):
                os.rename(self.target.path, self.before)
            os.rename(self.out, self.target.path)
        else:
            self._publish_files()
        _sync(self.target.path.parent)

    def _publish_files(self) -> None:
        """Between the first move and the last, the manifest says that it is none, and lists what is old and new."""
        *paths, manifest = self.target.paths
        old = {manifest.with_name(name) for name in self.target.replaced()} - set(paths)
        write_unfinished(self.scratch / MANIFEST, [path.name for path in (*paths, *old)])
        os.replace(self.scratch / MANIFEST, manifest)
        _sync(manifest.parent)
        for path in old:
            path.unlink(missing_ok=True)
        for path in paths:
            os.replace(self.out / path.name, path)
        os.replace(self.out / manifest.name, manifest)


@contextmanager
def drafting(target: Target, *, force: bool) -> Iterator[Draft]:
    """A draft of the target, which gets its name when the block ends, and is gone when it fails."""
    _sweep(target)
    target.refuse(force=force)
    folder = Path(tempfile.mkdtemp(prefix=_prefix(target), suffix=".draft", dir=target.path.parent))
    with (folder / LOCK).open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write(os.fsencode(target.path.name))
        lock.flush()
        draft = Draft(target, folder)
        try:
            draft.out.mkdir()
            draft.scratch.mkdir()
            yield draft
            draft.publish(force=force)
        finally:
            _put_back(draft)
            shutil.rmtree(folder, ignore_errors=True)


def _prefix(target: Target) -> str:
    return f".{target.path.name[:32]}."


def _sweep(target: Target) -> None:
    """Remove the drafts of this target that no process has any more."""
    for folder in target.path.parent.iterdir() if target.path.parent.is_dir() else ():
        if not (folder.name.startswith(_prefix(target)) and folder.name.endswith(".draft")):
            continue
        with suppress(OSError), (folder / LOCK).open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if lock.read() == os.fsencode(target.path.name):
                _put_back(Draft(target, folder))
                shutil.rmtree(folder, ignore_errors=True)


def _put_back(draft: Draft) -> None:
    """Give the target its old folder again, if it was taken away and nothing came in its place."""
    if draft.before.exists() and not os.path.lexists(draft.target.path):
        os.rename(draft.before, draft.target.path)


def _is_empty_folder(path: Path, may_be: bool) -> bool:
    return may_be and path.is_dir() and not path.is_symlink() and not any(path.iterdir())


def _sync(folder: Path) -> None:
    """Have the names on the disk, so that they outlive the machine."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
