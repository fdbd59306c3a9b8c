"""deploy/spot-notice.sh between a metadata service and a real worker."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from sqlalchemy import text

from schemas.database import Database
from tests.faults.invariants import assert_sound
from tests.pipeline.conftest import ROOT, Kosmograph, jpeg

SCRIPT = str(ROOT / "deploy" / "spot-notice.sh")
INTERRUPTION = "spot/instance-action"
REBALANCE = "events/recommendations/rebalance"
IMAGES = 300


@dataclass
class Metadata:
    """The metadata service of a machine: what it tells, and who asked without a token."""

    url: str = ""
    notices: dict[str, bytes] = field(default_factory=dict)
    token: str = "first"
    looks: int = 0
    refused: int = 0

    def answer(self, path: str, token: str | None) -> tuple[int, bytes]:
        if token != self.token:
            self.refused += 1
            return 401, b"Unauthorized"
        self.looks += 1
        notice = self.notices.get(path.removeprefix("/latest/meta-data/"))
        return (404, b"Not Found") if notice is None else (200, notice)


@pytest.fixture
def metadata() -> Iterator[Metadata]:
    place = Metadata()

    class Handler(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            timed = self.headers["X-aws-ec2-metadata-token-ttl-seconds"] and self.path == "/latest/api/token"
            self._send(*((200, place.token.encode()) if timed else (400, b"")))

        def do_GET(self) -> None:
            self._send(*place.answer(self.path, self.headers["X-aws-ec2-metadata-token"]))

        def _send(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        place.url = f"http://127.0.0.1:{server.server_address[1]}"
        yield place
        server.shutdown()


@pytest.fixture
def watch(metadata: Metadata, tmp_path: Path) -> Iterator[Callable[..., "subprocess.Popen[str]"]]:
    """Start the script with these arguments, its looks close to each other."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str, **variables: str) -> "subprocess.Popen[str]":
        ours = {"SPOT_METADATA_URL": metadata.url, "SPOT_INTERVAL_S": "0.1"}
        command = ["sh", SCRIPT, *arguments]
        pipe = subprocess.PIPE
        run = subprocess.Popen(
            command, cwd=tmp_path, env=os.environ | ours | variables, stdout=pipe, stderr=pipe, text=True,
            start_new_session=True, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )  # fmt: skip
        started.append(run)
        return run

    yield start
    for run in started:
        if run.poll() is None:
            os.killpg(run.pid, signal.SIGKILL)
            run.communicate()


def test_notice_drains_a_worker_in_the_middle_of_its_work(
    kosmograph: Kosmograph, metadata: Metadata, watch: Any, own_broker: Any, tmp_path: Path, wait_for: Any
) -> None:
    """It ends by itself with exit code 0; no image is blamed, none held back, and another worker does the rest."""
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(IMAGES):
        (photos / f"{number:04}.jpg").write_bytes(jpeg(number))
    everywhere = {
        "KOSMOGRAPH_DB": f"sqlite:///{kosmograph.folder / 'kosmograph.db'}",
        "KOSMOGRAPH_BROKER": own_broker.url,
        "KOSMOGRAPH_CHUNK_SIZE": "8",
        "KOSMOGRAPH_LOADER_PROCESSES": "1",
    }
    submitted = kosmograph("submit", str(photos), "--job", "night", "--model", "null", **everywhere)
    assert submitted.code == 0, submitted.err
    database = Database(everywhere["KOSMOGRAPH_DB"])

    def number(query: str) -> int:
        with database.read() as connection:
            return int(connection.execute(text(query)).scalar_one())

    dispatcher = kosmograph.start("dispatch", **everywhere)
    run = watch(sys.executable, "-P", "-m", "kosmograph", "worker", "--model", "null", **everywhere)
    wait_for(lambda: number("SELECT annotated FROM jobs") > 0, 120.0)
    metadata.notices[INTERRUPTION] = b'{"action": "terminate", "time": "2026-11-23T08:22:00Z"}'
    _, err = run.communicate(timeout=120)
    assert run.returncode == 0, err
    assert 'this machine goes: {"action": "terminate"' in err
    assert "worker ended" in err
    assert number("SELECT COUNT(*) FROM chunks WHERE state = 'running' OR crashes > 0 OR tries > 0") == 0

    another = kosmograph.start("worker", "--model", "null", **everywhere)
    wait_for(lambda: number("SELECT COUNT(*) FROM jobs WHERE state = 'finished'"), 120.0)
    for service in (dispatcher, another):
        service.send_signal(signal.SIGTERM)
        service.communicate(timeout=60)
        assert service.returncode == 0
    assert_sound(database, [path.as_uri() for path in photos.iterdir()])
    database.close()


STANDING = "trap 'echo asked; exit 5' TERM; echo up; while :; do sleep 0.1; done"


@pytest.mark.parametrize("name", [INTERRUPTION, REBALANCE])
def test_notice_of_either_kind_stops_the_command(metadata: Metadata, watch: Any, wait_for: Any, name: str) -> None:
    run = watch("sh", "-c", STANDING)
    assert run.stdout.readline() == "up\n"
    wait_for(lambda: metadata.looks > 4)
    assert run.poll() is None
    metadata.notices[name] = b'{"noticeTime": "2026-11-23T08:22:00Z"}'
    out, _ = run.communicate(timeout=30)
    assert (run.returncode, out) == (5, "asked\n")
    assert metadata.refused == 0


def test_recommendation_is_passed_over_where_it_is_not_wanted(metadata: Metadata, watch: Any, wait_for: Any) -> None:
    metadata.notices[REBALANCE] = b"{}"
    run = watch("sh", "-c", STANDING, SPOT_REBALANCE="0")
    wait_for(lambda: metadata.looks > 4)
    assert run.poll() is None


def test_expired_token_is_renewed(metadata: Metadata, watch: Any, wait_for: Any) -> None:
    run = watch("sh", "-c", STANDING)
    assert run.stdout.readline() == "up\n"
    wait_for(lambda: metadata.looks > 2)
    metadata.token = "second"
    metadata.notices[INTERRUPTION] = b"{}"
    run.communicate(timeout=30)
    assert run.returncode == 5
    assert metadata.refused in (1, 2)


def test_machine_without_a_metadata_service_is_left_alone(watch: Any) -> None:
    run = watch("sh", "-c", "sleep 1; exit 0", SPOT_METADATA_URL="http://127.0.0.1:9")
    _, err = run.communicate(timeout=30)
    assert (run.returncode, err) == (0, "")


@pytest.mark.parametrize("code", [0, 1, 75])
def test_exit_code_is_the_command_s(watch: Any, code: int) -> None:
    run = watch("sh", "-c", f"exit {code}")
    run.communicate(timeout=30)
    assert run.returncode == code


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_are_passed_on(watch: Any, number: int) -> None:
    run = watch("sh", "-c", STANDING)
    assert run.stdout.readline() == "up\n"
    run.send_signal(number)
    out, _ = run.communicate(timeout=30)
    assert (run.returncode, out) == (5, "asked\n")


def test_processes_that_run_already_are_told_by_their_ids(metadata: Metadata, watch: Any) -> None:
    metadata.notices[INTERRUPTION] = b"{}"
    standing = ["sh", "-c", STANDING]
    pipe = subprocess.PIPE
    with subprocess.Popen(standing, stdout=pipe) as one, subprocess.Popen(standing, stdout=pipe) as two:
        for process in (one, two):
            assert process.stdout
            assert process.stdout.readline() == b"up\n"
        run = watch("--pid", str(one.pid), str(two.pid))
        _, err = run.communicate(timeout=30)
        assert (run.returncode, one.wait(30), two.wait(30)) == (0, 5, 5), err


def test_process_that_is_not_there_is_told_and_a_hook_that_guards_nobody_fails(metadata: Metadata, watch: Any) -> None:
    with subprocess.Popen(["sh", "-c", "exit"]) as gone:
        gone.wait(30)
    run = watch("--pid", str(gone.pid))
    _, err = run.communicate(timeout=30)
    assert (run.returncode, err) == (1, f"spot-notice: there is no process {gone.pid}, or it is not ours to signal\n")
    assert metadata.looks == 0


@pytest.mark.parametrize("arguments", [(), ("--pid",), ("--pid", "all"), ("--pid", "0"), ("--pid", "-2")])
def test_wrong_use_is_told(watch: Any, arguments: tuple[str, ...]) -> None:
    run = watch(*arguments)
    _, err = run.communicate(timeout=30)
    assert run.returncode == 2
    assert re.match(r"usage: ", err)
