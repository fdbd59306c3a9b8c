"""Redis and PostgreSQL behind passwords and TLS, by URL alone; and a Redis that asks nobody for anything.

The servers of the wheels have no TLS: it is put in front of them, as stunnel does. The clients cannot tell.
"""

import ipaddress
import signal
import socket
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from cryptography import x509
from sqlalchemy import create_engine, make_url, text

from kosmograph.exposure import examine_broker, own_address
from schemas.errors import SetupError
from tests.security.conftest import Certificate
from tests.security.servers import Redis, TlsFront

WORD = "planted-8d1e07"


@pytest.fixture
def certificate(new_certificate: Callable[..., Certificate]) -> Certificate:
    return new_certificate(x509.IPAddress(ipaddress.ip_address("127.0.0.1")))


@pytest.fixture
def new_redis(wait_for: Callable[..., Any]) -> Iterator[Callable[..., Redis]]:
    started: list[Redis] = []

    def start(*options: str) -> Redis:
        started.append(Redis(*options))
        wait_for(started[-1].is_up)
        return started[-1]

    yield start
    for redis in started:
        redis.stop()


@pytest.fixture
def new_front(certificate: Certificate) -> Iterator[Callable[..., TlsFront]]:
    fronts: list[TlsFront] = []

    def make(connect: Callable[[], socket.socket], **options: bool) -> TlsFront:
        fronts.append(TlsFront(certificate.for_server(), connect, **options))
        return fronts[-1]

    yield make
    for front in fronts:
        front.close()


# Redis


def test_job_is_done_through_a_redis_with_tls_and_an_acl(
    kosmograph: Any,
    photos: Path,
    picture: Callable[..., bytes],
    certificate: Certificate,
    new_redis: Callable[..., Redis],
    new_front: Callable[..., TlsFront],
    wait_for: Callable[..., Any],
) -> None:
    """Dispatcher and worker, as a user of its own who may do what a queue needs and nothing dangerous."""
    rights = f"--user kosmograph on >{WORD} ~* &* +@all -@admin -@dangerous +info"
    redis = new_redis(*["--user", "default", "off"], *rights.split())
    front = new_front(redis.connect)
    options = f"ssl_cert_reqs=required&ssl_ca_certs={certificate.file}"
    everywhere = {"KOSMOGRAPH_BROKER": f"rediss://kosmograph:{WORD}@127.0.0.1:{front.port}/0?{options}"}
    for number in range(5):
        (photos / f"{number}.jpg").write_bytes(picture(number))
    assert kosmograph("submit", str(photos), "--job", "night", "--model", "null").code == 0
    services = [kosmograph.start(*words, **everywhere) for words in (("dispatch",), ("worker", "--model", "null"))]
    wait_for(lambda: kosmograph.value("SELECT state FROM progress") == "finished", 90.0)
    for service in services:
        service.send_signal(signal.SIGTERM)
    said = [service.communicate(timeout=60) for service in services]
    assert [service.returncode for service in services] == [0, 0], said
    assert kosmograph.value("SELECT annotated FROM progress") == 5
    assert front.secured >= 2
    assert WORD not in str(said)


def test_wrong_password_and_unknown_certificate_are_one_line(
    kosmograph: Any,
    certificate: Certificate,
    new_redis: Callable[..., Redis],
    new_front: Callable[..., TlsFront],
) -> None:
    redis = new_redis("--requirepass", "another")
    front = new_front(redis.connect)
    wrong = f"redis://:{WORD}@127.0.0.1:{redis.port}/0"
    unknown = f"rediss://:{WORD}@127.0.0.1:{front.port}/0?ssl_cert_reqs=required"
    for url, told in ((wrong, "refuses the user or the password"), (unknown, "certificate that is not trusted")):
        for command in (("dispatch",), ("worker", "--model", "null"), ("doctor",)):
            run = kosmograph(*command, "--broker", url)
            assert run.code == 1, run.err
            (line,) = [line for line in (run.out + run.err).splitlines() if told in line]
            assert command == ("doctor",) or run.err.splitlines() == [line]
            assert WORD not in run.out + run.err


EVERYWHERE = ("--bind", "0.0.0.0", "--protected-mode", "no")


@pytest.fixture
def address() -> str:
    """Where other machines reach this one."""
    return own_address() or pytest.skip("this machine has no way to others")


def test_redis_that_takes_anyone_from_anywhere_is_told_loudly(
    kosmograph: Any, new_redis: Callable[..., Redis], address: str
) -> None:
    url = f"redis://{address}:{new_redis(*EVERYWHERE).port}/0"
    run = kosmograph("doctor", "--broker", url)
    assert any(line.startswith("WARN  redis") and "asks for no password" in line for line in run.out.splitlines())
    for command in (("dispatch",), ("worker", "--model", "null")):
        service = kosmograph.start(*command, "--broker", url)
        line = next(line for line in service.stderr if "asks for no password" in line)
        assert "warning" in line
        service.send_signal(signal.SIGTERM)
        service.communicate(timeout=60)


def test_redis_with_a_password_or_on_loopback_is_told_nothing(new_redis: Callable[..., Redis], address: str) -> None:
    guarded = new_redis(*EVERYWHERE, "--requirepass", WORD)
    for host in (address, "localhost"):
        assert examine_broker(f"redis://:{WORD}@{host}:{guarded.port}/0") is None
        with pytest.raises(SetupError, match="refuses the user or the password"):
            examine_broker(f"redis://{host}:{guarded.port}/0")
    for local in (new_redis(), new_redis("--bind", "127.0.0.1", "--protected-mode", "no")):
        assert examine_broker(f"redis://localhost:{local.port}/0") is None


def test_password_or_loopback_that_an_open_redis_does_not_insist_on_is_no_protection(
    new_redis: Callable[..., Redis], address: str
) -> None:
    redis = new_redis(*EVERYWHERE, *f"--user kosmograph on >{WORD} ~* +@all".split())
    for who in ("", f"kosmograph:{WORD}@"):
        for host in (address, "localhost", "127.0.0.1"):
            warning = examine_broker(f"redis://{who}{host}:{redis.port}/0")
            assert "asks for no password" in str(warning)
            assert WORD not in str(warning)


# PostgreSQL


@pytest.fixture
def guarded_postgres(postgres_server: str) -> Iterator[tuple[str, Callable[[], socket.socket]]]:
    """A role that must show its password, with a database of its own, and a way to the server's socket."""
    role = f"guarded_{uuid.uuid4().hex[:8]}"
    engine = create_engine(make_url(postgres_server).set(drivername="postgresql+psycopg"), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        rules = Path(connection.execute(text("SHOW hba_file")).scalar_one())
        before = rules.read_text()
        rules.write_text(f"local all {role} scram-sha-256\n{before}")
        connection.execute(text(f"CREATE ROLE {role} LOGIN PASSWORD '{WORD}'"))
        connection.execute(text(f"CREATE DATABASE {role} OWNER {role}"))
        connection.execute(text("SELECT pg_reload_conf()"))
    folder = parse_qs(urlsplit(postgres_server).query)["host"][0]

    def connect() -> socket.socket:
        server = socket.socket(socket.AF_UNIX)
        server.connect(f"{folder}/.s.PGSQL.5432")
        return server

    yield role, connect
    with engine.connect() as connection:
        connection.execute(text(f"DROP DATABASE {role} WITH (FORCE)"))
        connection.execute(text(f"DROP ROLE {role}"))
        rules.write_text(before)
        connection.execute(text("SELECT pg_reload_conf()"))
    engine.dispose()


def test_job_is_done_on_a_postgresql_with_tls_and_a_password(
    kosmograph: Any,
    photos: Path,
    picture: Callable[..., bytes],
    certificate: Certificate,
    new_certificate: Callable[..., Certificate],
    guarded_postgres: tuple[str, Callable[[], socket.socket]],
    new_front: Callable[..., TlsFront],
) -> None:
    role, connect = guarded_postgres
    front = new_front(connect, postgresql=True)
    (photos / "a.jpg").write_bytes(picture(1))

    def annotate(options: str, word: str = WORD) -> Any:
        return kosmograph.annotate(
            str(photos), "--db", f"postgresql://{role}:{word}@127.0.0.1:{front.port}/{role}?{options}"
        )

    run = annotate("sslmode=require")
    assert run.code == 0, run.err
    assert front.secured
    run = annotate(f"sslmode=verify-full&sslrootcert={certificate.file}")
    assert (run.code, "1 images, 1 annotated" in run.out) == (0, True), run.err
    stranger = new_certificate(x509.DNSName("elsewhere.test"))
    for refused, told in (
        (annotate(f"sslmode=verify-full&sslrootcert={stranger.file}"), "certificate verify failed"),
        (annotate("sslmode=require", "planted-wrong"), "password authentication failed"),
    ):
        assert (refused.code, len(refused.err.splitlines())) == (1, 1), refused.err
        assert told in refused.err
        assert "planted" not in refused.out + refused.err
