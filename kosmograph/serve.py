"""`serve`: the gallery of a database, for the browser."""

import ipaddress
import os
import secrets
import signal
import socket
import sys
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from catalog.queries import captions_are_indexed
from catalog.reader import Reader
from kosmograph.control import open_database
from kosmograph.find import index_new_captions
from kosmograph.output import db_option, say
from kosmograph.pictures import Originals
from schemas.errors import SetupError, UsageError
from schemas.settings import Settings, load_settings

if TYPE_CHECKING:
    import uvicorn

    from catalog.gallery.app import Gallery
    from catalog.gallery.guard import Access

SHORTEST_TOKEN = 16
ENDING_S = 2
"""How long those are waited for who have not read their answer yet."""
INDEXING_S = 1.0


def serve(host: str, port: int, *, token: str | None, allow_http: bool | None, db: str | None) -> int:
    """Show the gallery until Ctrl-C or SIGTERM; the exit code."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # uvicorn raises what it was stopped by once more
    try:
        import jinja2  # noqa: F401
        import starlette  # noqa: F401
        import uvicorn
    except ImportError as error:
        raise SetupError(f"the gallery needs {error.name}: pip install 'kosmograph[gallery]'") from None
    settings = load_settings(db=db, allow_http=allow_http, gallery_token=token)
    if 0 < len(settings.gallery_token) < SHORTEST_TOKEN:
        raise UsageError(f"the gallery's token is too short to be a secret: {SHORTEST_TOKEN} characters or more")
    with open_database(settings.db) as reader:
        shown = str(reader)
    with _listen(host, port) as listener:
        access = access_to(listener, host, settings.gallery_token)
        gallery = gallery_of(settings, access)
        given = settings.gallery_token and not sys.stdout.isatty()  # a log has more readers than those who know it
        say(f"{shown} is shown at {_link(listener, host, '' if given else access.token)} until Ctrl-C")
        sys.stdout.flush()  # a pipe shows it now, and not when all is over
        config = uvicorn.Config(
            gallery,
            log_level="warning",
            access_log=False,  # an address may hold the token
            ws="none",
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=ENDING_S,
        )
        try:
            _server(config, gallery).run(sockets=[listener])
        except KeyboardInterrupt:
            return 0
    return 0


def _server(config: "uvicorn.Config", gallery: "Gallery") -> "uvicorn.Server":
    """A server that first of all gives up what still runs when it ends, so that there is nothing to wait for."""
    import uvicorn

    class Server(uvicorn.Server):
        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            gallery.close()
            await super().shutdown(sockets)

    return Server(config)


def gallery_of(settings: Settings, access: "Access") -> "Gallery":
    """The gallery as an ASGI application, for those that have access."""
    from catalog.gallery.app import Gallery
    from catalog.gallery.cache import Cache
    from catalog.gallery.pictures import Sources

    originals = Originals(settings)
    cache = Cache(_cache_folder(settings), settings.gallery_cache_bytes)
    return Gallery(
        lambda: open_database(settings.db),
        Indexing(settings.db),
        Sources(originals.read, originals.decode),
        cache,
        access,
        db_option(settings),
    )


class Indexing:
    """Takes captions into the index of words that a killed run has left out: no request for long, and one at a time."""

    def __init__(self, db: str) -> None:
        self._db = db
        self._one = threading.Lock()

    def __call__(self, reader: Reader) -> bool:
        """Whether all are in."""
        if not self._one.acquire(blocking=False):
            return captions_are_indexed(reader)
        try:
            return index_new_captions(reader, self._db, INDEXING_S)
        finally:
            self._one.release()


def access_to(listener: socket.socket, host: str, token: str) -> "Access":
    """Without a token only who is on this machine, and names it; from elsewhere with a token, made up if need be."""
    from catalog.gallery.guard import Access

    address, port = listener.getsockname()[:2]
    cookie = f"kosmograph_gallery_{port}"  # browsers tell ports not apart
    if not ipaddress.ip_address(address).is_loopback:
        return Access(token or secrets.token_urlsafe(24), None, cookie)
    return Access(token, {"localhost", "127.0.0.1", "::1", address, host.lower()}, cookie)


def _listen(host: str, port: int) -> socket.socket:
    """A socket that listens. Raises SetupError where it cannot."""
    try:
        ((family, _, _, _, address), *_) = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except (OSError, UnicodeError):
        raise UsageError(
            f"there is no address {host!r} here; --host takes one of this machine, like 127.0.0.1"
        ) from None
    try:
        return socket.create_server(address[:2], family=family, backlog=128)
    except PermissionError:
        raise SetupError(f"this user may not listen on port {port}; --port takes another, from 1024 on") from None
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        raise SetupError(f"{host}:{port} cannot be listened on: {reason}; --port names another") from None


def _link(listener: socket.socket, host: str, token: str) -> str:
    """The address to open, with the token where it is told."""
    address, port = listener.getsockname()[:2]
    if ipaddress.ip_address(address).is_unspecified:
        from kosmograph.exposure import own_address

        host = own_address() or socket.gethostname()
    name = f"[{host}]" if ":" in host else host
    return f"http://{name}:{port}/" + (f"?{urlencode({'token': token})}" if token else "")


def _cache_folder(settings: Settings) -> Path:
    """Where thumbnails are kept: as set, or in the user's cache folder, or in the temporary one."""
    if settings.gallery_cache:
        return Path(settings.gallery_cache).absolute()
    try:
        home = Path.home()
    except RuntimeError:
        home = Path("/nonexistent")
    if os.access(home, os.W_OK):
        return home / ".cache" / "kosmograph" / "gallery"
    return Path(tempfile.gettempdir()) / f"kosmograph-gallery-{os.getuid()}"
