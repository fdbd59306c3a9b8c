"""Pictures of images that the database knows, sized down: from where they lie, or from the cache.

Only bytes are decoded here whose hash is that of a content: a loader process, which may die of it, has decoded them
before. What has changed since it was annotated is not shown, as its boxes would lie on something else.
"""

import asyncio
import os
import textwrap
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from xml.sax.saxutils import escape

from PIL import Image
from starlette.requests import Request
from starlette.responses import Response

from catalog.gallery.cache import Cache
from catalog.gallery.questions import place_of
from catalog.gallery.readers import Readers
from catalog.queries import Place
from schemas.errors import Code, DatabaseAway, ImageFailure, PermanentFailure
from schemas.uris import path_of, printable, scheme_of

THUMBNAIL, PAGE = 320, 1600
"""Long sides in pixels."""
AT_ONCE = 4
"""Pictures that are read and decoded at a time: each may take the memory of `max_pixels`."""
QUALITY = 85
"""Of JPEG, which takes 10 ms for a page's picture where WebP of that size takes 235."""
STATUS = {Code.NOT_FOUND: 404, Code.ACCESS_DENIED: 403}
"""What a failure is to a browser; all others are 502: who keeps the pictures does not do its part."""
FRESH_S = 86_400


@dataclass(frozen=True)
class Sources:
    """How pictures are reached: the bytes at a place, if they still are those that were annotated, and what they show.

    `decode(data, side)` may halve what is larger while both sides stay at least `side`. Both raise ImageFailure.
    """

    read: Callable[[Place], bytes]
    decode: Callable[[bytes, int], Image.Image]


class Pictures:
    """Answers with pictures by an image's id."""

    def __init__(self, readers: Readers, sources: Sources, cache: Cache) -> None:
        self._readers = readers
        self._sources = sources
        self._cache = cache
        self._threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="picture")

    async def thumbnail(self, request: Request) -> Response:
        return await self._respond(request, THUMBNAIL)

    async def page(self, request: Request) -> Response:
        return await self._respond(request, PAGE)

    def close(self) -> None:
        self._threads.shutdown(cancel_futures=True)

    async def _respond(self, request: Request, side: int) -> Response:
        try:
            place = await self._readers.ask(place_of, request.path_params["image"])
        except DatabaseAway as away:
            return placeholder(str(away), 503)
        if place is None:
            return placeholder("no such image in this database", 404)
        loop = asyncio.get_running_loop()
        try:
            sha256 = _require(place)
            headers = _headers(sha256, side, request)
            if headers["ETag"] in request.headers.get("if-none-match", ""):
                return Response(status_code=304, headers=headers)
            data = await loop.run_in_executor(self._threads, self._small, place, sha256, side)
        except ImageFailure as failure:
            return placeholder(failure.message, STATUS.get(failure.code, 502))
        return Response(data, media_type="image/jpeg", headers=headers)

    def _small(self, place: Place, sha256: str, side: int) -> bytes:
        """The picture as JPEG, its long side at most `side`."""
        _require_inside(place)
        key = f"{sha256}-{side}"
        if (kept := self._cache.get(key)) is not None:
            return kept
        image = self._sources.decode(self._sources.read(place), side)
        image.thumbnail((side, side), Image.Resampling.LANCZOS)
        buffer = BytesIO()
        image.save(buffer, "JPEG", quality=QUALITY)
        self._cache.put(key, buffer.getvalue())
        return buffer.getvalue()


def _require(place: Place) -> str:
    """The hash of the content. Raises PermanentFailure where the image has none."""
    if place.sha256 is None:
        raise PermanentFailure(Code.NOT_FOUND, "it could not be read, so there is nothing to show")
    return place.sha256


def _require_inside(place: Place) -> None:
    """Raises PermanentFailure for a local file that lies outside the roots, also where a copy of it is kept."""
    if place.roots is None or scheme_of(place.uri) != "file":
        return
    try:
        real = os.path.realpath(os.fsencode(path_of(place.uri)))
    except (ValueError, OSError):
        raise PermanentFailure(Code.NOT_FOUND, "this URI names no file of this machine") from None
    if not place.roots.hold(real):
        raise PermanentFailure(Code.ACCESS_DENIED, "the file lies outside the folders that its jobs may read")


def _headers(sha256: str, side: int, request: Request) -> dict[str, str]:
    """Kept by the browser for long only under an address that names the content: ids are those of one database."""
    named = request.query_params.get("v") == sha256[:12]
    kept = f"private, max-age={FRESH_S}" if named else "private, no-cache"
    return {"ETag": f'"{sha256}-{side}"', "Cache-Control": kept}


def placeholder(reason: str, status: int) -> Response:
    """A small drawing that says why there is no picture."""
    lines = textwrap.wrap(printable(reason), 34)[:6]
    top = 120 - 10 * len(lines)
    text = "".join(
        f'<text x="160" y="{top + 20 * number}" text-anchor="middle">{escape(line)}</text>'
        for number, line in enumerate(lines, start=1)
    )
    drawing = (
        '<svg xmlns="http://www.w3.org/2000/svg" width="320" height="240" viewBox="0 0 320 240">'
        '<rect width="320" height="240" fill="#77746d"/>'
        f'<g font-family="system-ui, sans-serif" font-size="15" fill="#ffffff">{text}</g></svg>'
    )
    headers = {"Cache-Control": "no-store"}
    return Response(drawing, status, headers, media_type="image/svg+xml")
