"""`kosmograph serve` as a process: what it prints, whom it lets in, how it ends."""

import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

Start = Callable[..., "subprocess.Popen[str]"]
TOKEN = "a-secret-of-some-length"


@pytest.fixture
def start(sqlite_template: Path, tmp_path: Path) -> Iterator[Start]:
    """Starts `kosmograph serve` on a free port; it ends with the test."""
    running: list[subprocess.Popen[str]] = []

    def run(*arguments: str, stdout: int = subprocess.PIPE, **variables: str) -> "subprocess.Popen[str]":
        command = [sys.executable, "-P", "-m", "kosmograph", "serve", "--port", "0"]
        environment = os.environ | {"KOSMOGRAPH_GALLERY_CACHE": str(tmp_path / "cache")}
        server = subprocess.Popen(
            [*command, "--db", f"sqlite:///{sqlite_template}", *arguments],
            env=environment | variables,
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
        )
        running.append(server)
        return server

    yield run
    for server in running:
        server.kill()
        server.communicate()


def link_of(server: "subprocess.Popen[str]") -> str:
    assert server.stdout
    line = server.stdout.readline()
    found = re.search(r"http://\S+", line)
    assert found, line + server.communicate()[1]
    return found[0]


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_start_is_one_line_and_ctrl_c_ends_quietly(start: Start, stop: signal.Signals) -> None:
    server = start()
    link = link_of(server)
    assert link.startswith("http://127.0.0.1:")
    answer = httpx.get(link)
    assert (answer.status_code, "server" in answer.headers) == (200, False)
    assert httpx.get(link, headers={"Host": "evil.example"}).status_code == 421
    server.send_signal(stop)
    out, err = server.communicate(timeout=30)
    assert (server.returncode, out, err) == (0, "", "")


def test_supervisor_learns_without_the_token_that_it_lives_and_nothing_else(start: Start) -> None:
    live = httpx.get(link_of(start("--token", TOKEN)) + "live")
    assert (live.status_code, live.text) == (200, "ok")


def test_ctrl_c_ends_it_whatever_still_runs(start: Start, stuck: Path) -> None:
    """A search without an end, and a picture whose source never answers."""
    with socket.create_server(("127.0.0.1", 0)) as silent, ThreadPoolExecutor(2) as pool:
        source = f"http://127.0.0.1:{silent.getsockname()[1]}"
        keys = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x"}
        server = start("--db", f"sqlite:///{stuck}", KOSMOGRAPH_S3_ENDPOINT_URL=source, **keys)
        link = link_of(server)
        asked = [pool.submit(httpx.get, link + path, timeout=60) for path in ("jobs", "thumbnails/1")]
        silent.settimeout(30)
        connection, _ = silent.accept()
        with connection:
            assert not any(one.done() for one in asked)
            server.send_signal(signal.SIGINT)
            out, err = server.communicate(timeout=15)  # neither would have ended by then
        assert (server.returncode, out, err) == (0, "", "")
        assert [one.result().status_code for one in asked] == [503, 503]


@pytest.fixture
def stuck(sqlite_template: Path, tmp_path: Path) -> Path:
    """A database with a picture on S3, and with a view of progress that counts for ever."""
    path = tmp_path / "stuck.db"
    shutil.copy(sqlite_template, path)
    with closing(sqlite3.connect(path)) as database:
        columns = database.execute("SELECT name FROM pragma_table_info('progress')").fetchall()
        shown = ", ".join(f"x AS {name}" for (name,) in columns)
        database.executescript(f"""
            INSERT INTO contents (id, sha256, width, height, format, size) VALUES (1, 'a', 9, 9, 'JPEG', 9);
            INSERT INTO images (id, key, uri, version, content_id) VALUES (1, 'k', 's3://bucket/1.jpg', 'v', 1);
            INSERT INTO jobs (id, name, queue, state, listing, recipes, created_at, started_at)
            VALUES (1, 'job', 'q', 'running', '{{}}', 1, 0, 0);
            INSERT INTO outcomes (job_id, image_id, recipe_id, code, settled_at) VALUES (1, 1, 1, 'timeout', 0);
            DROP VIEW progress;
            CREATE VIEW progress AS
            WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT {shown} FROM n WHERE x < 0;
        """)
    return path


def test_elsewhere_than_on_loopback_a_token_is_needed_and_never_logged(start: Start) -> None:
    server = start("--host", "0.0.0.0")
    link, _, token = link_of(server).partition("?token=")
    assert len(token) >= 32
    here = re.sub(r"//[^:/]+|//\[.+\]", "//127.0.0.1", link)
    for path in ("", "jobs", "pictures/1", "thumbnails/1", "job.json", "?token=wrong"):
        assert httpx.get(here + path).status_code == 401
    with httpx.Client() as client:
        welcome = client.get(f"{here}jobs?token={token}")
        assert (welcome.status_code, welcome.headers["Location"]) == (303, "/jobs")
        assert client.get(f"{here}jobs").status_code == 200
    server.send_signal(signal.SIGINT)
    out, err = server.communicate(timeout=30)
    assert token not in out + err


def test_token_may_be_given_and_then_counts_on_loopback_too_and_is_not_printed_into_a_log(start: Start) -> None:
    for server in (start("--token", TOKEN), start(KOSMOGRAPH_GALLERY_TOKEN=TOKEN)):
        link = link_of(server)
        assert httpx.get(link).status_code == 401
        assert httpx.get(link, params={"token": TOKEN}, follow_redirects=True).status_code == 200
        server.send_signal(signal.SIGTERM)
        out, err = server.communicate(timeout=30)
        assert TOKEN not in link + out + err


def test_token_that_was_given_is_in_the_link_on_a_terminal(start: Start) -> None:
    reader, writer = os.openpty()
    start("--token", TOKEN, stdout=writer)
    with os.fdopen(reader) as terminal:
        assert f"?token={TOKEN} until" in terminal.readline()


@pytest.mark.parametrize("form", ["::1", "localhost"])
def test_loopback_by_other_names(start: Start, form: str) -> None:
    if form == "::1" and not has_ipv6():
        pytest.skip("this machine has no IPv6")
    assert httpx.get(link_of(start("--host", form))).status_code == 200


def has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


def test_what_is_wrong_is_one_line_with_the_remedy(start: Start, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        wrong: list[tuple[tuple[str, ...], int, str]] = [
            (("--port", str(taken.getsockname()[1])), 1, "--port names another"),
            (("--host", "no.such.host.invalid"), 2, "--host takes one"),
            (("--token", "short"), 2, "16 characters or more"),
            (("--db", f"sqlite:///{tmp_path}/none.db"), 1, "kosmograph annotate FOLDER makes one"),
        ]
        servers = [(start(*arguments), code, said) for arguments, code, said in wrong]
        for server, code, said in servers:
            out, err = server.communicate(timeout=60)
            assert (server.returncode, out, len(err.splitlines())) == (code, "", 1), err
            assert said in err


def test_without_the_packages_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    from kosmograph.serve import serve
    from schemas.errors import SetupError

    nothing: Any = None
    monkeypatch.setitem(sys.modules, "jinja2", nothing)
    with pytest.raises(SetupError, match=r"pip install 'kosmograph\[gallery\]'"):
        serve("127.0.0.1", 0, token=None, allow_http=None, db=None)
