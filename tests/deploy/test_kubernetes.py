"""The overlays as kustomize makes them, and KEDA's query on a real PostgreSQL."""

import re
import subprocess
from typing import Any

import pytest
import yaml
from sqlalchemy import text

from schemas.database import Database
from tests.deploy.containers import DEPLOY, kubernetes, objects, pods
from tests.deploy.processes import SECRETS

RECIPE = "INSERT INTO recipes (hash, task, prompt, model, revision, spec) VALUES (:h, 'x', 'x', :m, 'r', '{}')"
JOB = """INSERT INTO jobs (id, name, queue, state, listing, recipes, created_at, started_at)
    VALUES (:j, :n, 'q', :s, '{}', 1, 0, 0)"""
PART = "INSERT INTO job_recipes (job_id, recipe_id, ordinal) VALUES (:j, :r, :o)"
CHUNK = "INSERT INTO chunks (job_id, item_list, size, state) VALUES (:j, '[]', 1, :s)"


def of_kind(overlay: str, kind: str, name: str = "") -> dict[str, Any]:
    return next(one for one in objects(overlay) if one["kind"] == kind and name in ("", one["metadata"]["name"]))


@pytest.mark.parametrize("overlay", ["dev", "prod"])
def test_every_pod_is_confined(overlay: str) -> None:
    """As the namespace demands of it: Pod Security's `restricted`, and a read-only root beside."""
    for one, pod in pods(overlay):
        name = one["metadata"]["name"]
        assert pod["securityContext"]["runAsNonRoot"] is True, name
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert pod["automountServiceAccountToken"] is False, name
        # a Service of ours would put KOSMOGRAPH_... variables into pods that refuse those they do not know
        assert pod["enableServiceLinks"] is False, name
        for container in [*pod.get("initContainers", []), *pod["containers"]]:
            context = container["securityContext"]
            assert context["readOnlyRootFilesystem"] is True, name
            assert context["allowPrivilegeEscalation"] is False, name
            assert context["capabilities"] == {"drop": ["ALL"]}, name
            assert container["resources"]["limits"]["memory"], name
            assert "/tmp" in [mount["mountPath"] for mount in container["volumeMounts"]], name


@pytest.mark.parametrize("overlay", ["dev", "prod"])
def test_no_secret_is_in_an_overlay(overlay: str) -> None:
    assert not [one for one in objects(overlay) if one["kind"] == "Secret"]
    for _, pod in pods(overlay):
        for container in pod["containers"]:
            values = {entry["name"]: entry.get("value") for entry in container.get("env", [])}
            assert not [name for name, value in values.items() if value and ("PASSWORD" in name or "TOKEN" in name)]


@pytest.mark.parametrize("overlay", ["dev", "prod"])
def test_what_selects_pods_finds_some(overlay: str) -> None:
    labels = [
        (one["spec"]["jobTemplate"]["spec"] if one["kind"] == "CronJob" else one["spec"])["template"]["metadata"][
            "labels"
        ]
        for one, _ in pods(overlay)
    ]
    for one in objects(overlay):
        spec = one.get("spec", {})
        selector = spec.get("podSelector") or (spec.get("selector") if one["kind"] != "Service" else None)
        wanted = spec["selector"] if one["kind"] == "Service" else (selector or {}).get("matchLabels", {})
        assert any(wanted.items() <= have.items() for have in labels), one["metadata"]["name"]


@pytest.mark.parametrize("server", ["postgres", "valkey"])
def test_whoever_asks_a_server_of_dev_is_let_in(server: str) -> None:
    (rule,) = of_kind("dev", "NetworkPolicy", server)["spec"]["ingress"]
    wanted = rule["from"][0]["podSelector"]["matchLabels"].items()
    asking = [one for one, pod in pods("dev") if pod.get("serviceAccountName") == "kosmograph"]
    assert {one["metadata"]["name"] for one in asking} == {"dispatcher", "gallery", "submit", "worker"}
    for one in asking:
        assert wanted <= one["spec"]["template"]["metadata"]["labels"].items(), one["metadata"]["name"]


def test_pictures_of_the_trial_fit_into_a_configmap() -> None:
    root = DEPLOY.parent
    page = (root / "docs/how-to/kubernetes.md").read_text()
    (told,) = re.findall(r"create configmap pictures (\$\(.+?{} \+\))", page)
    words = subprocess.run(["sh", "-c", f"echo {told}"], cwd=root, capture_output=True, text=True, check=True)
    pictures = [root / word.removeprefix("--from-file=") for word in words.stdout.split()]
    assert len(pictures) > 8
    assert sum(picture.stat().st_size for picture in pictures) < 2**20  # Kubernetes takes no more


def test_targets_are_called_the_same_by_compose_and_kubernetes() -> None:
    """The alerts go by these names."""
    scrapes = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())["scrape_configs"]
    monitor = of_kind("prod", "PodMonitor")["spec"]
    (names,) = monitor["selector"]["matchExpressions"]
    (rename,) = monitor["podMetricsEndpoints"][0]["relabelings"]
    assert names["key"].translate(str.maketrans("./", "__")) in rename["sourceLabels"][0]
    assert rename["targetLabel"] == "job"
    assert {rename["replacement"].replace("$1", name) for name in names["values"]} <= {
        scrape["job_name"] for scrape in scrapes
    }


def test_worker_of_prod_has_a_gpu_and_two_minutes_to_leave() -> None:
    deployment = of_kind("prod", "Deployment", "worker")
    pod = deployment["spec"]["template"]["spec"]
    (worker,) = pod["containers"]
    assert deployment["spec"]["strategy"] == {"type": "Recreate"}
    assert "replicas" not in deployment["spec"]  # they are KEDA's
    assert worker["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert pod["terminationGracePeriodSeconds"] == 120
    assert kubernetes("prod", SECRETS)["worker/worker"].environment["KOSMOGRAPH_LOADER_PROCESSES"] == "4"
    assert {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"} in pod["tolerations"]
    paths = {kind: worker[kind]["httpGet"]["path"] for kind in ("startupProbe", "livenessProbe", "readinessProbe")}
    assert paths == {"startupProbe": "/ready", "livenessProbe": "/live", "readinessProbe": "/ready"}
    (filler,) = pod["initContainers"]
    model = {mount["name"]: mount for mount in worker["volumeMounts"]}["model"]
    assert model["readOnly"] is True
    assert model["mountPath"] in [mount["mountPath"] for mount in filler["volumeMounts"]]


def test_model_is_downloaded_as_the_worker_loads_it() -> None:
    from worker.revision import CONFIG_FILES

    pod = of_kind("prod", "Deployment", "worker")["spec"]["template"]["spec"]
    (filler,) = pod["initContainers"]
    words = filler["command"] + filler["args"]
    patterns = [words[at + 1] for at, word in enumerate(words) if word == "--include"]
    assert words[:2] == ["hf", "download"]
    assert all(any(name == one or name.endswith(one.lstrip("*")) for one in patterns) for name in CONFIG_FILES)
    assert "*.safetensors" in patterns


@pytest.fixture
def query() -> str:
    scaled = of_kind("prod", "ScaledObject")
    assert scaled["spec"]["minReplicaCount"] == 0
    (trigger,) = scaled["spec"]["triggers"]
    per_worker, most = int(trigger["metadata"]["targetQueryValue"]), scaled["spec"]["maxReplicaCount"]
    assert f"LIMIT {per_worker * most})" in trigger["metadata"]["query"]  # as many as make a difference
    return str(trigger["metadata"]["query"])


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_workers_are_scaled_on_what_is_unfinished_of_their_model(database: Database, query: str) -> None:
    """What is pending, queued or running, of running jobs: not what is done, nor of paused jobs and other models."""
    model = "microsoft/kosmos-2-patch14-224"
    assert f"'{model}'" in query
    with database.write() as connection:
        for recipe, of in enumerate((model, model, "another/model"), start=1):
            connection.execute(text(RECIPE), {"h": f"h{recipe}", "m": of})
        for job, state, recipes in ((1, "running", (1, 2)), (2, "paused", (1,)), (3, "running", (3,))):
            connection.execute(text(JOB), {"j": job, "n": f"job {job}", "s": state})
            for ordinal, recipe in enumerate(recipes):
                connection.execute(text(PART), {"j": job, "r": recipe, "o": ordinal})
            for chunk in ("pending", "queued", "running", "done", "done"):
                connection.execute(text(CHUNK), {"j": job, "s": chunk})
    with database.read() as connection:
        assert connection.execute(text(query)).scalar_one() == 3
        connection.execute(text("SET LOCAL enable_seqscan = off"))
        plan = "\n".join(connection.execute(text("EXPLAIN " + query)).scalars())
    assert "Limit" in plan
    assert "ix_chunks_" in plan  # of unfinished chunks only, however many are done
