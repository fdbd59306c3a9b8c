"""The threats to the pipeline, a file for each group of them.

| threat | file |
|---|---|
| server-side requests by URI | test_web.py, test_web_addresses.py |
| paths that lead out, files that block | test_local_files.py |
| abuse of `sql` | test_sql.py (and tests/kosmograph/test_ask.py) |
| forged messages | test_messages.py |
| Redis without a password, passwords, TLS | test_servers.py |
| a model folder with code, pickles, a broken header | test_models.py (and tests/worker/test_revision.py) |
| secrets in output | test_secrets.py |

Elsewhere: bombs and memory are in tests/worker/test_images.py and test_loader.py, a full disk, descriptors and killed
processes in tests/faults. The gallery, exports and what a browser runs are no part of the pipeline; their tests come
with them.
"""

import datetime
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.pipeline.conftest import kosmograph as kosmograph
from tests.pipeline.conftest import photos as photos
from tests.pipeline.conftest import picture as picture
from tests.worker.conftest import limits as limits


@dataclass(frozen=True)
class Answer:
    """What a server says to a path."""

    status: int = 200
    body: bytes = b"picture"
    headers: dict[str, str] = field(default_factory=dict)


class Site:
    """A web server that remembers who asked for what."""

    def __init__(self, host: str = "127.0.0.1", port: int = 0, tls: ssl.SSLContext | None = None) -> None:
        self.answers: dict[str, Answer | Callable[[BaseHTTPRequestHandler], None]] = {}
        self.requests: list[str] = []
        self.headers: list[dict[str, str]] = []
        site = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                site.requests.append(self.path)
                site.headers.append(dict(self.headers))
                answer = site.answers.get(self.path, Answer())
                if not isinstance(answer, Answer):
                    answer(self)
                    return
                self.send_response(answer.status)
                for name, value in ({"Content-Length": str(len(answer.body))} | answer.headers).items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(answer.body)

            do_CONNECT = do_POST = do_GET  # noqa: N815, a proxy would be asked so

            def log_message(self, *arguments: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *arguments: object) -> None:
                pass

        self._server = Server((host, port), Handler)
        self.port = int(self._server.server_address[1])
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def new_site() -> Iterator[Callable[..., Site]]:
    sites: list[Site] = []

    def make(*arguments: object, **options: object) -> Site:
        sites.append(Site(*arguments, **options))  # type: ignore[arg-type]
        return sites[-1]

    yield make
    for site in sites:
        site.close()


@pytest.fixture
def canary(new_site: Callable[..., Site]) -> Site:
    """A server on loopback that nobody may reach."""
    return new_site()


@dataclass(frozen=True)
class Certificate:
    """One that signs itself."""

    file: Path
    key: Path

    def for_server(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.file, self.key)
        return context


@pytest.fixture(scope="session")
def new_certificate(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Certificate]:
    """Makes a certificate for these names."""

    def make(*names: x509.GeneralName) -> Certificate:
        folder = tmp_path_factory.mktemp("certificate")
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
        now = datetime.datetime.now(datetime.timezone.utc)  # noqa: UP017
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(key, hashes.SHA256())
        )
        made = Certificate(folder / "certificate.pem", folder / "key.pem")
        made.file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        plain = (serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        made.key.write_bytes(key.private_bytes(serialization.Encoding.PEM, *plain))
        return made

    return make
