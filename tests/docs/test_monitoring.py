"""What the page on monitoring names is what there is, all of it."""

import re

from tests.docs.pages import ROOT

PAGE = (ROOT / "docs/monitoring.md").read_text()
TABLES = "\n".join(line for line in PAGE.splitlines() if line.startswith("|"))


def bare(names: list[str]) -> set[str]:
    """Without what Prometheus' client puts at the end of a name."""
    return {re.sub(r"_(total|info)$", "", name) for name in names}


def test_page_has_every_metric_and_no_other() -> None:
    sources = [(ROOT / name).read_text() for name in ("worker/metrics.py", "producer/metrics.py")]
    made = bare(re.findall(r"\"(kosmograph_\w+)\"", "\n".join(sources)))
    assert bare(re.findall(r"kosmograph_\w+", TABLES)) == made
    assert bare(re.findall(r"kosmograph_\w+", PAGE)) <= made


def test_page_has_every_alert_and_how_urgent_it_is() -> None:
    rules = (ROOT / "deploy/prometheus/alerts.yml").read_text()
    severities = re.findall(r"- alert: (\w+)\n.*?severity: (\w+)", rules, re.DOTALL)
    assert dict(re.findall(r"^\| `(Kosmograph\w+)` \|.*\| (\w+) \|$", TABLES, re.M)) == dict(severities)
