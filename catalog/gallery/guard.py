"""Who may ask, and what every answer says to the browser."""

import hashlib
import hmac
from collections.abc import Callable, Collection
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from urllib.parse import quote, urlencode, urlsplit

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

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

        answer = self._answer(Request(scope)) or self._app
        await answer(scope, receive, send_guarded)

    def _answer(self, request: Request) -> Response | None:
        """What is said instead of the page; None to who may see it."""
        if request.method not in ("GET", "HEAD"):
            answer = self._refuse(
                request, 405, "Only for looking", "The gallery changes nothing: it answers GET alone."
            )
            answer.headers["Allow"] = "GET, HEAD"
            return answer
        if self._access.hosts is not None and _host(request) not in self._access.hosts:
            text = "This gallery is for the machine it runs on, under its own name. Open the link that it has printed."
            return self._refuse(request, 421, "Not under this name", text)
        if not self._access.token or request.url.path.startswith(PUBLIC):
            return None
        given = request.query_params.get("token")
        if given is not None and hmac.compare_digest(given.encode(), self._access.token.encode()):
            return self._welcome(request)
        if given is None and hmac.compare_digest(self._proof_in(request).encode(), self._access.proof.encode()):
            return None
        text = "Open the link that kosmograph serve has printed, or enter the token that it ends in."
        return self._refuse(request, 401, "A token is needed", text)

    def _welcome(self, request: Request) -> Response:
        """To the same page without the token, which stands neither in the history nor in a link that is passed on."""
        rest = urlencode([pair for pair in request.query_params.multi_items() if pair[0] != "token"])
        path = "/" + quote(request.url.path.lstrip("/"))  # never //elsewhere
        answer = RedirectResponse(f"{path}?{rest}" if rest else path, status_code=303)
        answer.set_cookie(self._access.cookie, self._access.proof, httponly=True, samesite="strict")
        answer.headers["Cache-Control"] = "no-store"
        return answer

    def _proof_in(self, request: Request) -> str:
        try:
            found = SimpleCookie(request.headers.get("cookie", "")).get(self._access.cookie)
        except CookieError:
            return ""
        return found.value if found else ""


def _host(request: Request) -> str:
    """The name in the Host header, without its port; "" for what is none."""
    try:
        return urlsplit("//" + request.headers.get("host", "")).hostname or ""
    except ValueError:
        return ""
