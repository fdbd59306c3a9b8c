"""Who may ask, and what every answer says to the browser."""

import hashlib
import hmac
from collections.abc import Callable, Collection
from dataclasses import dataclass
from urllib.parse import quote, urlencode, urlsplit

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from schemas.uris import storable

POLICY = "; ".join(
    f"{kind} {source}"
    for kind, source in {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "img-src": "'self'",
        "connect-src": "'self'",
        "form-action": "'self'",
        "base-uri": "'none'",
        "frame-ancestors": "'none'",
    }.items()
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",  # no other site learns the size of a picture by showing it
}
PUBLIC = "/static/"
"""Style and script, which the page that refuses has as well."""
LIVE = "/live"
"""What a supervisor asks, who knows no token: the answer says nothing of the archive."""
MOST_REQUESTS = 256
"""At a time; those beyond are told to come again. A browser has six."""


@dataclass(frozen=True)
class Access:
    """What a request must bring along.

    token: a secret, in the link or by then in a cookie; "": none. hosts: the names under which a browser may know
    us, so that no other site can have its own name point here; None: any, as where there is a token.
    """

    token: str = ""
    hosts: Collection[str] | None = None
    cookie: str = "kosmograph_gallery"

    @property
    def proof(self) -> str:
        """What the cookie holds: the same after a restart with the same token, and not the token itself."""
        return hmac.new(self.token.encode(), b"kosmograph gallery", hashlib.sha256).hexdigest()


class Guard:
    """The application, for those who may see it."""

    def __init__(self, app: ASGIApp, access: Access, refuse: Callable[[Request, int, str, str], Response]) -> None:
        """`refuse(request, status, title, text)` makes the page that says no."""
        self._app = app
        self._access = access
        self._refuse = refuse
        self._running = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                headers.setdefault("Cache-Control", "no-cache")
            await send(message)

        self._running += 1
        try:
            answer = self._answer(Request(scope)) or self._app
            await answer(scope, receive, send_guarded)
        finally:
            self._running -= 1

    def _answer(self, request: Request) -> Response | None:
        """What is said instead of the page; None to who may see it."""
        if self._running > MOST_REQUESTS and request.scope["path"] != LIVE:  # to be slow is no reason to be restarted
            return self._refuse(request, 503, "Too much at once", f"More than {MOST_REQUESTS} requests are waiting.")
        if request.method not in ("GET", "HEAD"):
            answer = self._refuse(
                request, 405, "Only for looking", "The gallery changes nothing: it answers GET alone."
            )
            answer.headers["Allow"] = "GET, HEAD"
            return answer
        if self._access.hosts is not None and _host(request) not in self._access.hosts:
            text = "This gallery is for the machine it runs on, under its own name. Open the link that it has printed."
            return self._refuse(request, 421, "Not under this name", text)
        if (
            request.headers.get("sec-fetch-site") == "cross-site"
            and request.headers.get("sec-fetch-mode") != "navigate"
        ):
            return self._refuse(
                request, 403, "Not from another site", "Other sites may link here, and show nothing of it."
            )
        return self._no_entry(request) or self._nonsense(request)

    def _no_entry(self, request: Request) -> Response | None:
        """What is said to who does not know the token, or has it in the address; None to who may see the page."""
        path = request.scope["path"]
        if not self._access.token or path == LIVE or path.startswith(PUBLIC):
            return None
        given = request.query_params.get("token")
        if given is not None and hmac.compare_digest(given.encode(), self._access.token.encode()):
            return self._welcome(request)
        if given is None and self._proves(request):
            return None
        text = "Open the link that kosmograph serve has printed, or enter the token that it ends in."
        return self._refuse(request, 401, "A token is needed", text)

    def _proves(self, request: Request) -> bool:
        """Whether its cookie holds the proof."""
        given = request.cookies.get(self._access.cookie, "")
        return hmac.compare_digest(given.encode(), self._access.proof.encode())

    def _welcome(self, request: Request) -> Response:
        """To the same page without the token, which stands neither in the history nor in a link that is passed on."""
        rest, path = urlencode(query_without_token(request)), own_path(request)
        answer = RedirectResponse(f"{path}?{rest}" if rest else path, status_code=303)
        answer.set_cookie(self._access.cookie, self._access.proof, httponly=True, samesite="strict")
        answer.headers["Cache-Control"] = "no-store"
        return answer

    def _nonsense(self, request: Request) -> Response | None:
        """What is said to an address with text that no database holds; None to any other."""
        texts = (request.scope["path"], *(text for pair in request.query_params.multi_items() for text in pair))
        if all(map(storable, texts)):
            return None
        text = "The address holds a character that no name and no caption can have."
        return self._refuse(request, 400, "Not found", text)


def own_path(request: Request) -> str:
    """The path that was asked for, to go to again: always one of this server, and never that of `//elsewhere`.

    It is the request's line alone that says it: `request.url` is made up with the Host header.
    """
    return "/" + quote(request.scope["path"].lstrip("/"))


def query_without_token(request: Request) -> list[tuple[str, str]]:
    """What the address asks for, but for the token."""
    return [pair for pair in request.query_params.multi_items() if pair[0] != "token"]


def _host(request: Request) -> str:
    """The name in the Host header, without its port; "" for what is none."""
    try:
        return urlsplit("//" + request.headers.get("host", "")).hostname or ""
    except ValueError:
        return ""
