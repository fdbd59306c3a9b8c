"""Files on disk within a bound: when there are more, those go first that were used least recently.

Several servers may share a folder: a file is there whole or not at all, and one that has gone is made again.
"""

import os
import tempfile
import threading
from contextlib import suppress
from pathlib import Path

from schemas.errors import SetupError

LEFT = 0.9
"""What part of the bound is left when it was reached: so that not every new file looks at all of them."""


class Cache:
    """A private folder of files by key."""

    def __init__(self, folder: Path, most_bytes: int) -> None:
        """Raises SetupError where the folder cannot be made, or is another user's."""
        self._folder = folder
        self._most_bytes = most_bytes
        self._sweeping = threading.Lock()
        self._written = most_bytes  # since the last look: the first file has us look
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            status = folder.lstat()
        except OSError as error:
            raise SetupError(
                f"no thumbnails can be kept in {folder}: {error}; KOSMOGRAPH_GALLERY_CACHE names another"
            ) from None
        if status.st_uid != os.getuid() or status.st_mode & 0o022 or not folder.is_dir():
            raise SetupError(
                f"{folder} is not for this user alone, who would show what others put there;"
                " KOSMOGRAPH_GALLERY_CACHE names another"
            )

    def get(self, key: str) -> bytes | None:
        """The bytes under a key, which from now on is the one used last; None where there are none."""
        path = self._path(key)
        try:
            data = path.read_bytes()
        except OSError:
            return None
        with suppress(OSError):
            os.utime(path)
        return data

    def put(self, key: str, data: bytes) -> None:
        """Keep the bytes, as long as there is room. A full disk is no error: they are made again when needed."""
        path = self._path(key)
        with suppress(OSError):
            path.parent.mkdir(mode=0o700, exist_ok=True)
            descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".new-")
            try:
                with open(descriptor, "wb") as file:
                    file.write(data)
                os.replace(name, path)
            except OSError:
                os.unlink(name)
                raise
        self._written += len(data)
        if self._written > (1 - LEFT) * self._most_bytes and self._sweeping.acquire(blocking=False):
            try:
                self._sweep()
            finally:
                self._sweeping.release()

    def _sweep(self) -> None:
        """Remove the files used least recently until there is room again; what a killed server left among them."""
        self._written = 0
        found = []
        for folder, _, names in os.walk(self._folder):
            for name in names:
                with suppress(OSError):
                    path = Path(folder, name)
                    status = path.lstat()
                    found.append((status.st_mtime_ns, status.st_size, path))
        total = sum(size for _, size, _ in found)
        for _, size, path in sorted(found):
            if total <= LEFT * self._most_bytes:
                break
            with suppress(OSError):
                path.unlink()
                total -= size

    def _path(self, key: str) -> Path:
        return self._folder / key[:2] / key
