"""The gallery in Chromium: a server on a free port, and a browser that tells what it does not like."""

import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import uvicorn
from playwright.sync_api import Browser, Page

from catalog.gallery.guard import Access
from kosmograph.serve import gallery_of
from schemas.settings import load_settings
from tests.catalog.conftest import shelve

__all__ = ["shelve"]


@pytest.fixture
def database_url(sqlite_template: Path, tmp_path: Path) -> str:
    """The browser sees no difference between databases: SQLite does."""
    path = tmp_path / "kosmograph.db"
    shutil.copy(sqlite_template, path)
    return f"sqlite:///{path}"


@pytest.fixture
def address(database_url: str, tmp_path: Path, wait_for: Callable[..., Any]) -> Iterator[str]:
    """The address of a gallery of the test's database."""
    settings = load_settings(db=database_url, gallery_cache=str(tmp_path / "cache"))
    config = uvicorn.Config(gallery_of(settings, Access()), port=0, log_level="error", ws="none")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    wait_for(lambda: server.started)
    host, port = server.servers[0].sockets[0].getsockname()[:2]
    yield f"http://{host}:{port}"
    server.should_exit = True
    thread.join()


@pytest.fixture
def browse(chromium: Browser, address: str) -> Iterator[Callable[..., Page]]:
    """Opens an address in a window of its own. At the end nothing may have been complained of, or asked elsewhere.

    It needs the server, so that the windows are closed before that is.
    """
    complaints: list[str] = []
    hosts: set[str] = set()
    own: set[str] = set()
    with ExitStack() as stack:

        def open_page(address: str, **options: Any) -> Page:
            context = chromium.new_context(**{"viewport": {"width": 1280, "height": 800}, **options})
            stack.callback(context.close)
            context.set_default_timeout(15_000)
            page = context.new_page()
            page.on("console", lambda message: complaints.append(f"{message.type}: {message.text}"))
            page.on("pageerror", lambda error: complaints.append(str(error)))
            page.on("request", lambda request: hosts.add(urlsplit(request.url).netloc))
            own.add(urlsplit(address).netloc)
            page.goto(address)
            return page

        yield open_page
    assert complaints == []
    assert hosts <= own
