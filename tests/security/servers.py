"""A Redis with options of its own, and TLS in front of servers that were built without it (as ours from the wheels)."""

import socket
import ssl
import subprocess
from collections.abc import Callable
from contextlib import suppress
from threading import Thread

from kosmograph.redis_server import find_redis_server

SSL_REQUEST = bytes.fromhex("0000000804d2162f")


class Redis:
    """On a port; started anew with other options by the next one."""

    def __init__(self, *options: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = int(free.getsockname()[1])
        arguments = ("--port", str(self.port), "--save", "", "--appendonly", "no", *options)
        self._process = subprocess.Popen([find_redis_server(), *arguments], stdout=subprocess.DEVNULL)

    def is_up(self) -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port)):
            return True
        return False

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port))

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()


class TlsFront:
    """Takes TLS connections on loopback, and hands what they hold to a server. What is not TLS is turned away."""

    def __init__(self, tls: ssl.SSLContext, connect: Callable[[], socket.socket], *, postgresql: bool = False) -> None:
        self._tls, self._connect, self._postgresql = tls, connect, postgresql
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.secured = 0
        Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with suppress(OSError), client:
            if self._postgresql:
                if client.recv(8, socket.MSG_WAITALL) != SSL_REQUEST:
                    return
                client.sendall(b"S")
            with self._tls.wrap_socket(client, server_side=True) as secure, self._connect() as server:
                self.secured += 1
                back = Thread(target=_pump, args=(server, secure), daemon=True)
                back.start()
                _pump(secure, server)


def _pump(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    with suppress(OSError):
        target.shutdown(socket.SHUT_RDWR)
