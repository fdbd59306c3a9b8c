"""The dashboard and the alerts, as far as they can be checked without a Grafana."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.deploy.containers import DEPLOY
from tests.deploy.dashboard import FAMILIES, families_of, panels, queries

FILE = DEPLOY / "grafana" / "dashboards" / "kosmograph.json"
PROVISIONING = DEPLOY / "grafana" / "provisioning"
ALERTS = DEPLOY / "prometheus" / "alerts.yml"


def rules() -> list[dict[str, object]]:
    return [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]


def test_dashboard_is_what_its_script_writes() -> None:
    command = [sys.executable, DEPLOY / "grafana" / "dashboard.py"]
    written = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert written == FILE.read_text(), "python deploy/grafana/dashboard.py > deploy/grafana/dashboards/kosmograph.json"


def test_every_panel_says_what_it_shows() -> None:
    for panel in panels():
        assert panel["title"]
        assert panel["description"].endswith(".")
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert panel["targets"]
        for source in (panel["datasource"], *(target["datasource"] for target in panel["targets"])):
            assert source == {"type": "prometheus", "uid": "${datasource}"}


def test_panels_have_numbers_and_places_of_their_own() -> None:
    every = json.loads(FILE.read_text())["panels"]
    assert len({panel["id"] for panel in every}) == len(every)
    taken: set[tuple[int, int]] = set()
    for panel in every:
        place = panel["gridPos"]
        cells = {(place["x"] + right, place["y"] + down) for right in range(place["w"]) for down in range(place["h"])}
        assert max(x for x, _ in cells) < 24
        assert not taken & cells, panel["title"]
        taken |= cells


def test_every_metric_is_shown_and_no_other() -> None:
    assert set().union(*(families_of(query) for _, query in queries())) == FAMILIES
    assert set().union(*(families_of(str(rule["expr"])) for rule in rules())) <= FAMILIES


def test_variables_of_the_queries_are_those_of_the_dashboard() -> None:
    listed = {one["name"] for one in json.loads(FILE.read_text())["templating"]["list"]}
    assert listed == {"datasource", "instance"}
    assert not [query for _, query in queries() if "$" in query]


@pytest.mark.skipif(not shutil.which("promtool"), reason="there is no promtool here: Debian has it in prometheus")
def test_prometheus_understands_every_query(tmp_path: Path) -> None:
    recorded = [{"record": f"query:{at}", "expr": query} for at, (_, query) in enumerate(queries())]
    file = tmp_path / "queries.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": recorded}]}))
    done = subprocess.run(["promtool", "check", "rules", file], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"{len(recorded)} rules found" in done.stdout


def test_every_alert_is_tried_by_the_rules_tests() -> None:
    tried = ALERTS.with_name("alerts.test.yml").read_text()
    for rule in rules():
        assert f'alertname="{rule["alert"]}"' in tried or f"alertname: {rule['alert']}" in tried, rule["alert"]
        assert rule["labels"]["severity"] in ("page", "ticket")  # type: ignore[index]
        assert set(rule["annotations"]) == {"summary", "description"}  # type: ignore[call-overload]


def test_grafana_finds_what_it_is_provisioned_with() -> None:
    (source,) = yaml.safe_load((PROVISIONING / "datasources" / "prometheus.yaml").read_text())["datasources"]
    scrapes = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    assert source["url"].removeprefix("http://").partition(":")[0] in services
    assert source["jsonData"]["timeInterval"] == scrapes["global"]["scrape_interval"]
    (provider,) = yaml.safe_load((PROVISIONING / "dashboards" / "kosmograph.yaml").read_text())["providers"]
    folders = [volume["target"] for volume in services["grafana"]["volumes"]]
    assert provider["options"]["path"] in folders
    names = {name for job in scrapes["scrape_configs"] for found in job["dns_sd_configs"] for name in found["names"]}
    assert names == {"dispatcher", "worker", "worker-cpu"}
    assert names <= services.keys()
