"""What a source passes over: hidden names, names that are no image's, and what the user's patterns leave out."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase
from functools import cached_property

_NOT_IMAGES = """
    txt md rst log html htm css pdf doc docx odt rtf tex epub xls xlsx ods ppt pptx odp
    json jsonl ndjson csv tsv xml yaml yml toml ini cfg conf parquet arrow feather avro db sqlite sqlite3 sql
    npy npz pkl pickle h5 hdf5 pt pth onnx safetensors ckpt bin
    zip tar gz tgz bz2 xz zst 7z rar iso dmg exe dll so whl jar deb rpm
    mp3 wav flac ogg opus m4a aac mp4 m4v mov avi mkv webm mpg mpeg wmv flv srt vtt ttf otf woff woff2
    py pyc ipynb js ts c h cpp hpp rs go java sh bat ps1
    xmp aae thm lrv md5 sha1 sha256 bak tmp part crdownload lock url lnk
"""
NOT_IMAGES = frozenset(_NOT_IMAGES.split())
"""Extensions in lower case that never are a picture's. An unknown one is taken: the decoder knows better."""


class Skip(StrEnum):
    """Why a name in a source is no item. Counted by kind in the summary."""

    HIDDEN = "hidden"
    NOT_AN_IMAGE = "not an image's extension"
    FILTERED = "left out by --include or --exclude"
    LINK_OUTSIDE = "link to a place outside the source"
    LINK_AGAIN = "link to a folder that is listed anyway"
    LINK_BROKEN = "broken link"
    NOT_A_FILE = "neither a file nor a folder"
    UNREADABLE = "unreadable"
    FOLDER_KEY = "S3 key that only marks a folder"
    ARCHIVED = "in an S3 archive class"
    UNUSABLE = "without a usable URI"


class Glob:
    """A pattern of path parts: `*`, `?` and `[…]` stay within one part, `**` is any number of parts."""

    def __init__(self, pattern: str) -> None:
        if pattern.endswith("/"):
            pattern += "**"
        self.parts = [part for part in pattern.split("/") if part not in ("", ".")]

    def matches(self, path: str) -> bool:
        """Whether it matches the whole path; a pattern of one part may match the bare name instead."""
        parts = path.split("/")
        return len(self.parts) in self._reached(parts if len(self.parts) != 1 else parts[-1:])

    def leads_into(self, folder: str) -> bool:
        """Whether anything below the folder can match: what cannot need not be walked."""
        return any(place < len(self.parts) for place in self._reached(folder.split("/")))

    def _reached(self, parts: Sequence[str]) -> set[int]:
        """The places in the pattern where one can stand after these parts."""
        places = self._beyond_stars({0})
        for part in parts:
            places = self._beyond_stars({after for place in places for after in self._steps(place, part)})
        return places

    def _steps(self, place: int, part: str) -> tuple[int, ...]:
        if place == len(self.parts):
            return ()
        if self.parts[place] == "**":
            return (place,)
        return (place + 1,) if fnmatchcase(part, self.parts[place]) else ()

    def _beyond_stars(self, places: set[int]) -> set[int]:
        reached = set(places)
        for place in places:
            while place < len(self.parts) and self.parts[place] == "**":
                place += 1
                reached.add(place)
        return reached


@dataclass(frozen=True)
class Filters:
    """The user's patterns, over the path relative to the source or the bare name.

    `all_files` also takes hidden names and those with a known extension of something else.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    all_files: bool = False

    def skips(self, path: str) -> Skip | None:
        """Why the file at this path, relative to the source, is left out, or None: it is taken."""
        if not self.all_files:
            if is_hidden(path):
                return Skip.HIDDEN
            stem, dot, extension = path.rpartition("/")[2].rpartition(".")
            if stem and dot and extension.lower() in NOT_IMAGES:
                return Skip.NOT_AN_IMAGE
        return None if self.selects(path) else Skip.FILTERED

    def selects(self, path: str) -> bool:
        """Whether the patterns alone let it through."""
        included = not self.include or any(glob.matches(path) for glob in self._included)
        return included and not any(glob.matches(path) for glob in self._excluded)

    @cached_property
    def take_all(self) -> bool:
        """There are no patterns."""
        return not (self.include or self.exclude)

    @cached_property
    def _included(self) -> list[Glob]:
        return [Glob(pattern) for pattern in self.include]

    @cached_property
    def _excluded(self) -> list[Glob]:
        return [Glob(pattern) for pattern in self.exclude]


def is_hidden(path: str) -> bool:
    """Whether a part of the path begins with a dot; `.` and `..`, which S3 keys may have, are no names."""
    return (path.startswith(".") or "/." in path) and any(
        part.startswith(".") and part not in (".", "..") for part in path.split("/")
    )
