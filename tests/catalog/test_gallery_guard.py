"""Who may see the gallery: by the name of the host, and by the token."""

import asyncio

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.testclient import TestClient
from starlette.types import ASGIApp, Receive, Scope, Send

from catalog.gallery.guard import HEADERS, LIVE, Access, Guard
from tests.catalog.galleries import run

TOKEN = "a-secret-of-some-length"


def client(access: Access, **options: object) -> TestClient:
    async def page(request: Request) -> Response:
        return PlainTextResponse("the archive")

    def refuse(request: Request, status: int, title: str, text: str) -> Response:
        return PlainTextResponse(text, status)

    app = Starlette(routes=[Route("/{path:path}", page)])
    return TestClient(Guard(app, access, refuse), base_url="http://localhost:8765", follow_redirects=False)


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:8765", 200),
        ("LOCALHOST", 200),
        ("127.0.0.1:8765", 200),
        ("[::1]:8765", 200),
        ("evil.example", 421),
        ("evil.example:8765", 421),
        ("localhost.evil.example", 421),
        ("localhost@evil.example", 421),
        ("[", 421),
        ("evil.example/static/?", 421),
        ("", 421),
    ],
)
def test_on_loopback_only_names_of_this_machine_are_answered(host: str, status: int) -> None:
    """Else another site could let its own name point here, and read everything."""
    answer = client(Access("", {"localhost", "127.0.0.1", "::1"})).get("/", headers={"Host": host})
    assert answer.status_code == status
    assert ("archive" in answer.text) == (status == 200)
    assert answer.headers["Content-Security-Policy"] == HEADERS["Content-Security-Policy"]


def test_without_the_token_there_is_nothing_but_style_and_script() -> None:
    guarded = client(Access(TOKEN))
    for path in ("/", "/jobs", "/pictures/1", "/?token=", "/?token=wrong", "/?token=ü", f"/?token={TOKEN}x"):
        answer = guarded.get(path)
        assert answer.status_code == 401
        assert "archive" not in answer.text
        assert "set-cookie" not in answer.headers
    assert guarded.get("/", headers={"Cookie": f"kosmograph_gallery={TOKEN}"}).status_code == 401
    assert guarded.get("/", headers={"Cookie": "kosmograph_gallery=ü".encode()}).status_code == 401
    assert guarded.get("/static/gallery.css").status_code == 200
    assert guarded.get("/live").status_code == 200


@pytest.mark.parametrize("host", ["x/static/?", "x/static/#", "x/static", "localhost/static/?"])
def test_path_is_that_of_the_request_whatever_its_host_says(host: str) -> None:
    guarded = client(Access(TOKEN))
    assert guarded.get("/jobs", headers={"Host": host}).status_code == 401
    welcome = guarded.get(f"/jobs?token={TOKEN}", headers={"Host": host})
    assert (welcome.status_code, welcome.headers["Location"]) == (303, "/jobs")


def test_cookie_counts_beside_any_other_of_this_host() -> None:
    access = Access(TOKEN)
    headers = {"Cookie": f'prefs={{"a":1}}; b@d=[x]; {access.cookie}={access.proof}; ='}
    assert client(access).get("/jobs", headers=headers).status_code == 200


@pytest.mark.parametrize(
    ("site", "mode", "status"),
    [
        ("cross-site", "no-cors", 403),
        ("cross-site", "cors", 403),
        ("cross-site", "", 403),
        ("cross-site", "navigate", 200),
        ("same-origin", "no-cors", 200),
        ("none", "navigate", 200),
    ],
)
def test_another_site_may_link_here_and_have_nothing_done(site: str, mode: str, status: int) -> None:
    answer = client(Access()).get("/thumbnails/1", headers={"Sec-Fetch-Site": site, "Sec-Fetch-Mode": mode})
    assert answer.status_code == status


@pytest.mark.parametrize("query", ["job=a%00b", "q=%00", "relation=inside&partner=%00", "%00=x", "name=%00"])
def test_text_that_no_database_holds_is_refused(query: str) -> None:
    assert client(Access()).get(f"/jobs?{query}").status_code == 400
    assert client(Access()).get("/jobs?name=%ED%A0%80").status_code == 200  # half a pair is replaced as it is read


def test_more_requests_than_can_be_answered_are_told_to_come_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("catalog.gallery.guard.MOST_REQUESTS", 3)
    answers: list[int] = []

    async def many() -> None:
        at_work, enough = asyncio.Semaphore(0), asyncio.Event()

        async def slow(scope: Scope, receive: Receive, send: Send) -> None:
            at_work.release()
            await enough.wait()
            await PlainTextResponse("the archive")(scope, receive, send)

        async def ask(guarded: ASGIApp, path: str = "/") -> None:
            async with httpx.AsyncClient(transport=httpx.ASGITransport(guarded), base_url="http://localhost") as one:
                answer = await one.get(path)
                answers.append(answer.status_code)
                assert {name: answer.headers[name] for name in HEADERS} == HEADERS

        guarded = Guard(slow, Access(), lambda _, status, title, text: PlainTextResponse(text, status))
        first = [asyncio.create_task(ask(guarded)) for _ in range(3)]
        for _ in first:
            await at_work.acquire()
        await ask(guarded)
        live = asyncio.create_task(ask(guarded, LIVE))  # to be slow is no reason to be restarted
        await at_work.acquire()
        enough.set()
        await asyncio.gather(*first, live)
        await ask(guarded)

    run(many())
    assert answers == [503, 200, 200, 200, 200, 200]


def test_token_becomes_a_cookie_and_leaves_the_address() -> None:
    guarded = client(Access(TOKEN))
    answer = guarded.get(f"/jobs?q=a+b&token={TOKEN}&x=%26")
    assert (answer.status_code, answer.headers["Location"]) == (303, "/jobs?q=a+b&x=%26")
    cookie = answer.headers["Set-Cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert TOKEN not in cookie
    assert answer.headers["Cache-Control"] == "no-store"
    assert guarded.get("/jobs").text == "the archive"
    assert client(Access("another-secret-of-ours")).get("/", headers={"Cookie": cookie}).status_code == 401


@pytest.mark.parametrize("path", ["//evil.example/", "/%2f%2fevil.example", "/\\evil.example"])
def test_redirect_stays_here(path: str) -> None:
    scope_path = client(Access(TOKEN)).get(f"http://localhost:8765{path}?token={TOKEN}")
    assert scope_path.status_code == 303
    assert scope_path.headers["Location"].startswith("/")
    assert scope_path.headers["Location"][1:2] not in ("/", "\\")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
def test_nothing_but_looking(method: str) -> None:
    answer = client(Access()).request(method, "/")
    assert (answer.status_code, answer.headers["Allow"]) == (405, "GET, HEAD")
