"""The gallery as an ASGI application."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from catalog.gallery.cache import Cache
from catalog.gallery.guard import Access, Guard
from catalog.gallery.pages import Pages
from catalog.gallery.pictures import Pictures, Sources
from catalog.gallery.readers import Readers
from catalog.reader import Reader
from schemas.errors import DatabaseAway, UsageError

STATIC = Path(__file__).parent / "static"


def make_gallery(
    open_one: Callable[[], Reader],
    index: Callable[[Reader], bool],
    sources: Sources,
    cache: Cache,
    access: Access,
    db_option: str,
) -> ASGIApp:
    """The gallery of a database: `open_one` connects to it, `index` takes its new captions into the index of words.

    db_option: what commands on its pages need to find the database.
    """
    readers = Readers(open_one)
    pages, pictures = Pages(readers, index, db_option), Pictures(readers, sources, cache)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        pictures.close()
        readers.close()

    routes = [
        Route("/", pages.grid),
        Route("/images/{image}", pages.picture),
        Route("/images/{image}/{annotation}", pages.picture),
        Route("/jobs", pages.jobs),
        Route("/job", pages.job),
        Route("/job.json", pages.job_now),
        Route("/failures", pages.failures),
        Route("/thumbnails/{image}", pictures.thumbnail),
        Route("/pictures/{image}", pictures.page),
        Mount("/static", StaticFiles(directory=STATIC)),
    ]
    failed = dict.fromkeys((DatabaseAway, UsageError, HTTPException), pages.failed)
    app = Starlette(routes=routes, exception_handlers=failed, lifespan=lifespan)
    return Guard(app, access, pages.refuse)
