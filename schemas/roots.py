"""The folders whose local files a job may read: its roots."""

import os
from collections.abc import Iterable, Sequence
from pathlib import PurePath


class Roots:
    """Some folders, with links resolved."""

    def __init__(self, folders: Sequence[str]) -> None:
        self.folders = folders
        self._real: frozenset[bytes] = frozenset()

    def hold(self, place: bytes) -> bool:
        """Whether a path without links lies in one of them.

        Their own links are followed again before the answer is no: one may lead elsewhere by now.
        """
        if self._held(place):
            return True
        self._real = frozenset(os.path.realpath(os.fsencode(folder)).rstrip(b"/") for folder in self.folders)
        return self._held(place)

    def _held(self, place: bytes) -> bool:
        while place and place not in self._real:
            place = place.rpartition(b"/")[0]
        return place in self._real


def outermost(folders: Iterable[str]) -> list[str]:
    """The absolute folders in order, each once, without those that lie in another one and are reached through it."""
    real = {folder: os.path.realpath(folder) for folder in folders}

    def is_inner(folder: str) -> bool:
        above = (str(one) for one in PurePath(folder).parents)
        return any(PurePath(real[folder]).is_relative_to(real[one]) for one in above if one in real)

    return sorted(folder for folder in real if not is_inner(folder))
