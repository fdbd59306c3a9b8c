"""Pictures of images that the database knows, sized down: from where they lie, or from the cache.

Only bytes are decoded here whose hash is that of a content: a loader process, which may die of it, has decoded them
before. What has changed since it was annotated is not shown, as its boxes would lie on something else.
"""

import os
import textwrap
import threading
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from io import BytesIO
from xml.sax.saxutils import escape

from PIL import Image
from starlette.requests import Request
from starlette.responses import Response

from catalog.gallery.cache import Cache
from catalog.gallery.questions import id_in, place_of
from catalog.gallery.readers import Readers
from catalog.gallery.threads import Threads
from catalog.queries import Place
from catalog.reader import Interrupted
from schemas.errors import Code, DatabaseAway, ImageFailure, PermanentFailure
from schemas.uris import path_of, printable, scheme_of

THUMBNAIL, PAGE = 320, 1600
"""Long sides in pixels."""
AT_ONCE = 4
"""Pictures that are read and decoded at a time."""
LARGE = 25_000_000
"""Pixels of a picture from which on one is decoded at a time: near `max_pixels` each takes more than a gigabyte."""
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
        self._threads = Threads(AT_ONCE, "picture")
        self._looks = Threads(AT_ONCE, "cache")
        self._one_large = threading.Lock()

    async def thumbnail(self, request: Request) -> Response:
        return await self._respond(request, THUMBNAIL)

    async def page(self, request: Request) -> Response:
        return await self._respond(request, PAGE)

    def close(self) -> None:
        """Wait for no picture: its source may take minutes."""
        self._threads.close()
        self._looks.close()

    async def _respond(self, request: Request, side: int) -> Response:
        image = id_in(request.path_params["image"])
        try:
            place = None if image is None else await self._readers.ask(place_of, image)
            if place is None:
                return placeholder("no such image in this database", 404)
            return await self._picture(request, place, side)
        except ImageFailure as failure:
            return placeholder(failure.message, STATUS.get(failure.code, 502))
        except DatabaseAway as away:
            return placeholder(str(away), 503)
        except Interrupted:
            return placeholder("there was no answer in time; try again in a while", 503)

    async def _picture(self, request: Request, place: Place, side: int) -> Response:
        sha256 = _require(place)
        headers = _headers(sha256, side, request)
        if headers["ETag"] in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        key = f"{sha256}-{side}"
        # what is kept does not wait behind slow sources
        data = await self._looks.run(lambda: self._kept(place, key))
        data = data or await self._threads.run(lambda: self._kept(place, key) or self._made(place, key, side))
        return Response(data, media_type="image/jpeg", headers=headers)

    def _kept(self, place: Place, key: str) -> bytes | None:
        """The picture as it was made before, for those who may see it; None where it is not kept."""
        _require_inside(place)
        return self._cache.get(key)

    def _made(self, place: Place, key: str, side: int) -> bytes:
        """The picture as JPEG, its long side at most `side`."""
        data = self._sources.read(place)
        with self._one_large if place.pixels > LARGE else nullcontext():
            image = self._sources.decode(data, side)
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
