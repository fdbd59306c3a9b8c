"""What the tests of the producer share: folders with any names, and sources opened as the command line opens them."""

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from producer.sources import Columns, Filters, Source, StorageOptions, open_sources

Tree = Callable[..., Path]
OpenSource = Callable[..., Source]


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """Writes files (each holding its own name) below `photos`, and gives that folder."""

    def write(*names: str | bytes) -> Path:
        root = tmp_path / "photos"
        root.mkdir(exist_ok=True)
        for name in map(os.fsencode, names):
            path = Path(os.fsdecode(os.path.join(os.fsencode(root), name)))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(name)
        return root

    return write


@pytest.fixture
def open_source(tmp_path: Path) -> OpenSource:
    """Opens one source, by default without patterns."""

    def open_one(
        spec: str | Path,
        filters: Filters | None = None,
        storage: StorageOptions | None = None,
        columns: Columns | None = None,
    ) -> Source:
        specs = [os.fspath(spec)]
        (source,) = open_sources(specs, filters or Filters(), storage or StorageOptions(), tmp_path / "spool", columns)
        return source

    return open_one


@pytest.fixture
def as_nobody(tmp_path: Path) -> Iterator[Path]:
    """A folder while the process may not read everything, although the tests run as root."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        os.chmod(folder, 0o755)
        if os.geteuid() != 0:
            yield Path(folder)
            return
        os.chown(folder, 65534, 65534)
        os.seteuid(65534)
        try:
            yield Path(folder)
        finally:
            os.seteuid(0)


@pytest.fixture
def restarts_anywhere() -> Callable[[Source], None]:
    """Asserts that a restart from any cursor gives exactly the rest."""

    def check(source: Source) -> None:
        everything = list(source.list())
        for place, found in enumerate(everything):
            assert list(source.list(found.cursor)) == everything[place + 1 :]

    return check


@pytest.fixture
def uris() -> Callable[[Source], list[str]]:
    return lambda source: [found.item.uri for found in source.list() if found.item]


@pytest.fixture
def skips() -> Callable[[Source], list[str]]:
    """The kinds of what a source passes over, in its order."""
    return lambda source: [found.skip.name for found in source.list() if found.skip]
