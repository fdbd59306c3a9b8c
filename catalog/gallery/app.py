"""The gallery as an ASGI application."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import Receive, Scope, Send

from catalog.gallery.cache import Cache
from catalog.gallery.guard import LIVE, Access, Guard
from catalog.gallery.pages import Pages
from catalog.gallery.pictures import Pictures, Sources
from catalog.gallery.readers import Readers
from catalog.reader import Interrupted, Reader
from schemas.errors import DatabaseAway, UsageError

STATIC = Path(__file__).parent / "static"
FOR_PICTURES = 2
"""Connections that only say where pictures are: thumbnails do not wait for searches."""


class Gallery:
    """The gallery of a database, as an application."""

    def __init__(
        self,
        open_one: Callable[[], Reader],
        index: Callable[[Reader], bool],
        sources: Sources,
        cache: Cache,
        access: Access,
        db_option: str,
    ) -> None:
        """`open_one` connects to the database, `index` takes its new captions into the index of words.

        db_option: what commands on its pages need to find the database.
        """
        self._readers, self._places = Readers(open_one), Readers(open_one, FOR_PICTURES)
        self._pictures = Pictures(self._places, sources, cache)
        pages = Pages(self._readers, index, db_option)
        failed = dict.fromkeys((DatabaseAway, Interrupted, UsageError, HTTPException), pages.failed)
        app = Starlette(routes=_routes(pages, self._pictures), exception_handlers=failed, lifespan=self._lifespan)
        self._app = Guard(app, access, pages.refuse)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)

    @asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        yield
        self.close()

    def close(self) -> None:
        """Give up whatever still runs, and say so to those who wait for it."""
        self._pictures.close()
        self._readers.close()
        self._places.close()


def _routes(pages: Pages, pictures: Pictures) -> list[Route | Mount]:
    return [
        Route("/", pages.grid),
        Route("/images/{image}", pages.picture),
        Route("/images/{image}/{annotation}", pages.picture),
        Route("/jobs", pages.jobs),
        Route("/job", pages.job),
        Route("/job.json", pages.job_now),
        Route("/failures", pages.failures),
        Route("/thumbnails/{image}", pictures.thumbnail),
        Route("/pictures/{image}", pictures.page),
        Route(LIVE, _live),
        Mount("/static", StaticFiles(directory=STATIC)),
    ]


async def _live(request: Request) -> Response:
    """That requests are answered at all: an archive that is away, or slow, is no reason to be started again."""
    return PlainTextResponse("ok")
