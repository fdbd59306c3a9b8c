"""Containers' commands as plain processes: this machine's Python, free ports, and a log each."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from redis import Redis
from redis.exceptions import ConnectionError

from kosmograph.redis_server import find_redis_server
from tests.deploy.containers import ENV, GALLERY_PORT, METRICS_PORT, Container, compose

SECRETS = {
    "KOSMOGRAPH_DB": compose()["dispatcher"].environment["KOSMOGRAPH_DB"],
    "KOSMOGRAPH_BROKER": compose()["dispatcher"].environment["KOSMOGRAPH_BROKER"],
    "KOSMOGRAPH_GALLERY_TOKEN": ENV["GALLERY_TOKEN"],
    "POSTGRES_PASSWORD": ENV["POSTGRES_PASSWORD"],
    "VALKEY_PASSWORD": ENV["VALKEY_PASSWORD"],
}
"""What a cluster's Secret would hold."""
LOOK_S = 0.5
"""Between two health checks: each starts a Python."""


def free_port() -> int:
    """A TCP port that nobody has now."""
    with socket.socket() as unbound:
        unbound.bind(("127.0.0.1", 0))
        return int(unbound.getsockname()[1])


@dataclass
class Started:
    """A container's command as a process, and the port that stands for the one it would have."""

    container: Container
    process: "subprocess.Popen[str]"
    port: int
    environment: dict[str, str]
    log: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def is_up(self) -> bool:
        """Whether it is healthy by now; fails for one that has ended."""
        assert self.process.poll() is None, self.log.read_text()
        time.sleep(LOOK_S)
        return self.healthy()

    def ends_with_0(self, limit_s: float = 120.0) -> None:
        """Wait for its end."""
        assert self.process.wait(limit_s) == 0, self.log.read_text()

    def healthy(self) -> bool:
        """What its health check says."""
        words = [word.replace(str(METRICS_PORT), str(self.port)) for word in self.container.health]
        words = [word.replace(str(GALLERY_PORT), str(self.port)) for word in words]
        words = [sys.executable if word == "python3" else word for word in words]
        return subprocess.run(words, env=self.environment, capture_output=True).returncode == 0


def as_here(container: Container, places: Mapping[str, str], folder: Path) -> tuple[Container, int]:
    """The container with this machine's Python, free ports, and `places` in the place of hosts and folders."""
    port = free_port()
    ours = {"/cache": str(folder / "cache"), str(METRICS_PORT): str(port), "0.0.0.0": "127.0.0.1"} | dict(places)

    def put(text: str) -> str:
        for before, after in ours.items():
            text = text.replace(before, after)
        return text

    known = {key: put(value) for key, value in container.environment.items() if key not in ("PATH", "HOME")}
    words = [put(word) for word in container.command]
    if words[0] == "kosmograph":
        words = [sys.executable, "-P", "-m", *words]
    if "serve" in words:
        words += ["--port", str(port)]
    return replace(container, command=words, environment=known), port


def start(container: Container, places: Mapping[str, str], folder: Path) -> Started:
    """The container's command as a process of its own group, in `folder`, with its output in a log there."""
    here, port = as_here(container, places, folder)
    (folder / "cache").mkdir(exist_ok=True)
    environment = os.environ | here.environment
    path = folder / f"{container.name}.log"
    with path.open("w") as log:
        process = subprocess.Popen(
            here.command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, text=True,
            start_new_session=True,
        )  # fmt: skip
    return Started(here, process, port, environment, path)


def start_valkey(folder: Path) -> tuple[Started, str]:
    """The broker's container with a server and a port of this machine, and its URL."""
    tools, port = folder / "bin", free_port()
    tools.mkdir()
    (tools / "valkey-server").symlink_to(find_redis_server())
    place = {"dir /data": f"dir {folder}\nport {port}"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
        server = start(compose()["valkey"], place, folder)
    return server, SECRETS["KOSMOGRAPH_BROKER"].replace("valkey:6379", f"127.0.0.1:{port}")


def answers(broker: str) -> bool:
    with suppress(ConnectionError):
        return bool(Redis.from_url(broker).ping())
    return False
