"""Pictures that are really there, and the gallery that shows them."""

import asyncio
import hashlib
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest
from PIL import Image
from starlette.testclient import TestClient

from catalog.gallery.guard import Access
from kosmograph.serve import gallery_of
from schemas.database import Database
from schemas.settings import load_settings
from schemas.uris import file_uri, path_of
from tests.catalog.conftest import Picture, Thing

T = TypeVar("T")
Gallery = Callable[..., TestClient]


@dataclass(frozen=True)
class RealPicture(Picture):
    """A picture whose file is there, and whose content is that file's."""

    @property
    def sha256(self) -> str:
        return hashlib.sha256(path_of(self.uri).read_bytes()).hexdigest()


def real_picture(
    path: Path,
    things: Sequence[Thing] = (),
    *,
    size: tuple[int, int] = (640, 480),
    colour: str | int = "teal",
    caption: str = "",
) -> RealPicture:
    """A JPEG of one colour, written."""
    path.parent.mkdir(exist_ok=True, parents=True)
    Image.new("RGB", size, colour).save(path, "JPEG")
    return RealPicture(file_uri(path), things, caption, size)


def set_roots(database: Database, job: str, roots: str | None) -> None:
    """Change the folders that a job may read, as JSON."""
    from sqlalchemy import text

    with database.write() as connection:
        connection.execute(text("UPDATE jobs SET roots = :roots WHERE name = :job"), {"roots": roots, "job": job})


def ids_of(database: Database) -> dict[str, int]:
    """The ids of images by the last part of their URIs."""
    from sqlalchemy import text

    with database.read() as connection:
        rows = connection.execute(text("SELECT uri, id FROM images")).all()
    return {uri.rpartition("/")[2]: image for uri, image in rows}


@pytest.fixture
def gallery(database_url: str, tmp_path: Path) -> Iterator[Gallery]:
    """Opens the gallery of the test's database: `gallery()`, or with other settings or an `access`."""
    with ExitStack() as stack:

        def make(access: Access | None = None, **changed: Any) -> TestClient:
            settings = load_settings(db=database_url, **{"gallery_cache": str(tmp_path / "cache")} | changed)
            app = gallery_of(settings, access or Access())
            return stack.enter_context(TestClient(app, base_url="http://localhost", follow_redirects=False))

        yield make


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """What a coroutine returns, in a thread of its own: Playwright's loop runs in that of the tests."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, coroutine).result()
