"""What containers are told, read from the files that tell it: Dockerfile, compose.yaml and the Kubernetes overlays.

A test that runs them as plain processes begins here, and so cannot pass on a stale copy.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml

DEPLOY = Path(__file__).parents[2] / "deploy"
OVERLAYS = DEPLOY / "kubernetes" / "overlays"
ENV = {
    "POSTGRES_PASSWORD": "postgres0secret",
    "VALKEY_PASSWORD": "valkey0secret",
    "GALLERY_TOKEN": "a-token-of-some-length",
    "GRAFANA_PASSWORD": "grafana0secret",
    "PICTURES": "/pictures",
}
"""What a person would fill into `.env`."""
METRICS_PORT, GALLERY_PORT = 9100, 8765


@dataclass(frozen=True)
class Image:
    """A target of the Dockerfile."""

    entrypoint: list[str]
    command: list[str]
    environment: dict[str, str]
    health: list[str]
    instructions: dict[str, str]
    """The others that it has, by their names: USER, STOPSIGNAL, FROM ..."""


@dataclass(frozen=True)
class Container:
    """What one process is started with, and asked."""

    name: str
    command: list[str]
    environment: dict[str, str] = field(default_factory=dict)
    health: list[str] = field(default_factory=list)
    """The command that says whether it is well; [] where none does."""
    probes: dict[str, tuple[str, int]] = field(default_factory=dict)
    """Kubernetes: path and port by the probe's name."""
    said: dict[str, Any] = field(default_factory=dict)
    """All that its file says of it."""


@cache
def images() -> dict[str, Image]:
    """The Dockerfile's targets by their names."""
    text = re.sub(r"^#.*\n", "", (DEPLOY / "Dockerfile").read_text(), flags=re.MULTILINE)
    made: dict[str, Image] = {}
    for stage in re.split(r"^(?=FROM )", text.replace("\\\n", " "), flags=re.MULTILINE)[1:]:
        lines = [line.split(None, 1) for line in stage.splitlines() if line.strip()]
        said = dict(lines)
        health = said.get("HEALTHCHECK", "").partition(" CMD ")[2]
        made[said["FROM"].split(" AS ")[1]] = Image(
            json.loads(said.get("ENTRYPOINT", "[]")),
            json.loads(said.get("CMD", "[]")),
            dict(pair.split("=", 1) for pair in shlex.split(said.get("ENV", ""))),
            json.loads(health or "[]"),
            said,
        )
    return made


def compose(variables: Mapping[str, str] = ENV) -> dict[str, Container]:
    """The services of compose.yaml, with the variables filled in."""
    said = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    return {name: _of_compose(name, _filled(service, variables)) for name, service in said["services"].items()}


def _of_compose(name: str, said: dict[str, Any]) -> Container:
    command = said.get("command", [])
    health = said.get("healthcheck", {}).get("test", [])
    health = ["sh", "-c", health[1]] if health[:1] == ["CMD-SHELL"] else health[1:]
    environment = {key: str(value) for key, value in said.get("environment", {}).items()}
    if "build" not in said:
        return Container(name, command, environment, health, said=said)
    image = images()[said["build"]["target"]]
    disabled = said.get("healthcheck", {}).get("disable", False)
    ours = [] if disabled else health or image.health
    return Container(name, image.entrypoint + command, image.environment | environment, ours, said=said)


def _filled(value: Any, variables: Mapping[str, str]) -> Any:
    """With `${NAME}`, `${NAME:-default}`, `${NAME-default}`, `${NAME:?error}` and `$$` as compose reads them."""
    if isinstance(value, dict):
        return {key: _filled(one, variables) for key, one in value.items()}
    if isinstance(value, list):
        return [_filled(one, variables) for one in value]
    if not isinstance(value, str):
        return value

    def fill(found: re.Match[str]) -> str:
        if found[0] == "$$":
            return "$"
        name, how, word = found["name"], found["how"] or "", found["word"] or ""
        given = variables.get(name)
        if given is not None and (given or not how.startswith(":")):
            return given
        if how.endswith("?"):
            raise KeyError(f"{name}: {word}")
        return word

    return re.sub(r"\$\$|\$\{(?P<name>\w+)(?:(?P<how>:?[-?])(?P<word>[^}]*))?}", fill, value)


@cache
def objects(overlay: str) -> tuple[dict[str, Any], ...]:
    """What `kubectl kustomize` makes of an overlay."""
    kubectl = shutil.which("kubectl", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    assert kubectl, "pip install -e '.[dev]' brings kubectl"
    done = subprocess.run([kubectl, "kustomize", OVERLAYS / overlay], capture_output=True, text=True, check=True)
    return tuple(yaml.safe_load_all(done.stdout))


def pods(overlay: str) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Each workload of an overlay, and the spec of its pods."""
    for one in objects(overlay):
        spec = one.get("spec", {}).get("jobTemplate", one).get("spec", {})
        if "template" in spec:
            yield one, spec["template"]["spec"]


def kubernetes(overlay: str, secrets: Mapping[str, str]) -> dict[str, Container]:
    """The containers of an overlay's pods, by `workload/container`, with the Secret's values filled in."""
    maps = {one["metadata"]["name"]: one.get("data", {}) for one in objects(overlay) if one["kind"] == "ConfigMap"}
    return {
        f"{one['metadata']['name']}/{said['name']}": _of_kubernetes(said, maps, secrets)
        for one, pod in pods(overlay)
        for said in [*pod.get("initContainers", []), *pod["containers"]]
    }


def _referred(to: dict[str, Any], said: dict[str, Any], secrets: Mapping[str, str]) -> str:
    """A key of the Secret, or a resource of the container itself."""
    if "secretKeyRef" in to:
        return secrets[to["secretKeyRef"]["key"]]
    kind, _, name = to["resourceFieldRef"]["resource"].partition(".")
    return str(said["resources"][kind][name])


def _of_kubernetes(said: dict[str, Any], maps: Mapping[str, Any], secrets: Mapping[str, str]) -> Container:
    environment = {
        key: str(value)
        for source in said.get("envFrom", [])
        for key, value in maps[source["configMapRef"]["name"]].items()
    }
    for entry in said.get("env", []):
        environment[entry["name"]] = entry.get("value") or _referred(entry["valueFrom"], said, secrets)
    name = said["image"].rpartition("/")[2].partition(":")[0]
    image = images().get({"kosmograph": "light", "kosmograph-worker": "worker"}.get(name, ""))
    known = (image.environment if image else {}) | environment
    command = said.get("command") or (image.entrypoint if image else [])
    words = [re.sub(r"\$\((\w+)\)", lambda found: known[found[1]], word) for word in command + said.get("args", [])]
    ports = {port["name"]: port["containerPort"] for port in said.get("ports", [])}
    probes = {
        kind: (said[kind]["httpGet"]["path"], ports[said[kind]["httpGet"]["port"]])
        for kind in ("startupProbe", "livenessProbe", "readinessProbe")
        if "httpGet" in said.get(kind, {})
    }
    return Container(said["name"], words, known, probes=probes, said=said)
