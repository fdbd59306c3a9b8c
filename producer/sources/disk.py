"""Sources on disk: one file, and a folder or those of its files that a glob names."""

import errno
import os
import stat
from collections.abc import Iterator, MutableSequence, Sequence
from dataclasses import dataclass
from itertools import chain
from urllib.parse import quote_from_bytes, unquote_to_bytes

from producer.sources.filters import Filters, Glob, Skip, is_hidden
from producer.sources.source import Listed, listed
from schemas.errors import SourceError
from schemas.items import Item
from schemas.uris import file_uri, file_version, printable

NAMES_AT_ONCE = 200_000
"""How many names of one folder are held, sorted; a larger folder is read again for the next ones. About 30 MB."""


class FileSource:
    """One file, named by the user: taken whatever its name is."""

    def __init__(self, path: str, spec: str) -> None:
        self.spec = spec
        # its folder, so that as many files as a shell names have few; of a link, where it leads
        place = os.path.realpath(path) if os.path.islink(path) else path
        folder = os.path.dirname(place)
        self.roots: Sequence[str] = (place if folder == "/" else folder,)
        self._path = path

    def list(self, after: str | None = None) -> Iterator[Listed]:
        if after is None:
            try:
                yield listed("1", _item(os.fsencode(self._path), os.stat(self._path)))
            except OSError as error:
                raise SourceError(f"{printable(self._path)}: {error.strerror}; check the path") from None


@dataclass(slots=True)
class _Folder:
    """A folder on the way down: its path from the root (`a/b/`), the names to come, the cursor's parts below it."""

    path: bytes
    names: Iterator[bytes]
    resume: Sequence[bytes]
    linked: bool


class FolderSource:
    """A folder with all below it, depth first, the names of each folder in the order of their bytes.

    Symbolic links are followed to places inside the folder. A folder that is reached by a link is listed under both
    names; links to folders that lie in it are not followed from there: so loops end, and links that point at one
    another cost their square at most.
    """

    def __init__(
        self, root: str, spec: str, filters: Filters, glob: Glob | None = None, names_at_once: int = NAMES_AT_ONCE
    ) -> None:
        self.spec = spec
        self.roots: Sequence[str] = (root.rstrip("/") or "/",)
        self._root = os.fsencode(root).rstrip(b"/") + b"/"
        self._inside = os.path.realpath(self._root).rstrip(b"/") + b"/"
        self._filters = filters
        self._glob = glob
        self._names_at_once = names_at_once

    def list(self, after: str | None = None) -> Iterator[Listed]:
        """The cursor is the path from the root, percent-encoded."""
        try:
            stack = [self._enter(b"", unquote_to_bytes(after).split(b"/") if after else (), linked=False)]
            while stack:
                name = next(stack[-1].names, None)
                if name is None:
                    stack.pop()
                else:
                    yield from self._visit(name, stack)
        except OSError as error:
            root = printable(os.fsdecode(self._root))
            raise SourceError(f"cannot read the folder {root}: {error.strerror}; check its permissions") from None

    def _visit(self, name: bytes, stack: MutableSequence[_Folder]) -> Iterator[Listed]:
        """What is to be said of one name; a folder goes on the stack."""
        folder = stack[-1]
        path = folder.path + name
        below = folder.resume[1:] if folder.resume and folder.resume[0] == name else ()
        found = self._look(path, folder.linked)
        if isinstance(found, _Enter):
            try:
                stack.append(self._enter(path + b"/", below, linked=found.linked))
                return
            except OSError:
                found = Skip.UNREADABLE
        if found is not None and not below:  # what was a folder when the cursor went into it comes before the cursor
            yield listed(quote_from_bytes(path), found)

    def _enter(self, path: bytes, resume: Sequence[bytes], *, linked: bool) -> _Folder:
        """The folder with its first names read. Raises OSError where they cannot be."""
        last = resume[0] if resume else b""
        first = [last] if len(resume) > 1 else []  # the cursor lies in this folder: there is more of it
        names = chain(first, self._names(path, self._page(path, last)))
        return _Folder(path, names, resume, linked)

    def _names(self, path: bytes, page: Sequence[bytes]) -> Iterator[bytes]:
        while page:
            last = page[-1]
            yield from page
            page = self._page(path, last) if len(page) == self._names_at_once else []

    def _page(self, path: bytes, after: bytes) -> Sequence[bytes]:
        """The next names of a folder in order: as many as are held at once."""
        page: list[bytes] = []
        with os.scandir(self._root + path) as entries:
            for entry in entries:
                if entry.name > after:
                    page.append(entry.name)
                if len(page) >= 2 * self._names_at_once:
                    page = sorted(page)[: self._names_at_once]
        return sorted(page)[: self._names_at_once]

    def _look(self, path: bytes, linked: bool) -> "Item | Skip | _Enter | None":
        """What a name stands for; None where it is not in the source: gone, or not what the glob names."""
        place, text = self._root + path, os.fsdecode(path)
        if not (self._named(text) or self._leads_into(text)):
            return None
        if is_hidden(text) and not self._filters.all_files:
            return Skip.HIDDEN
        try:
            status = os.lstat(place)
        except OSError as error:
            return None if error.errno == errno.ENOENT else Skip.UNREADABLE
        is_link, loops = stat.S_ISLNK(status.st_mode), False
        if is_link:
            target = self._resolve(place)
            if isinstance(target, Skip):
                return target
            status, loops = target
        if not stat.S_ISDIR(status.st_mode):
            return self._look_at_file(place, text, status)
        if not self._leads_into(text):
            return None
        return Skip.LINK_AGAIN if is_link and (linked or loops) else _Enter(linked or is_link)

    def _look_at_file(self, place: bytes, text: str, status: os.stat_result) -> Item | Skip | None:
        if not self._named(text):
            return None
        special = None if stat.S_ISREG(status.st_mode) else Skip.NOT_A_FILE
        return self._filters.skips(text) or special or _item(place, status)

    def _named(self, path: str) -> bool:
        return self._glob is None or self._glob.matches(path)

    def _leads_into(self, path: str) -> bool:
        return self._glob is None or self._glob.leads_into(path)

    def _resolve(self, place: bytes) -> tuple[os.stat_result, bool] | Skip:
        """What is at the end of a link, and whether it is a folder that the link lies in."""
        try:
            target = os.path.realpath(place, strict=True)
            status = os.stat(target)
        except OSError:
            return Skip.LINK_BROKEN
        if not (target + b"/").startswith(self._inside):
            return Skip.LINK_OUTSIDE
        home = os.path.realpath(os.path.dirname(place))
        return status, (home + b"/").startswith(target.rstrip(b"/") + b"/")


@dataclass(frozen=True, slots=True)
class _Enter:
    """A folder to go into; `linked` when a link led here."""

    linked: bool


def _item(place: bytes, status: os.stat_result) -> Item:
    return Item(file_uri(place), file_version(status), status.st_size)
