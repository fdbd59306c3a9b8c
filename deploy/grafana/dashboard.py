"""Writes the Grafana dashboard from a list of its panels.

python deploy/grafana/dashboard.py > deploy/grafana/dashboards/kosmograph.json
"""

import json
import sys
from collections.abc import Iterator
from typing import Any

from panels import ROWS, Panel

SOURCE = {"type": "prometheus", "uid": "${datasource}"}
WIDTH = 24


def dashboard() -> dict[str, Any]:
    """The dashboard as Grafana stores it."""
    return {
        "uid": "kosmograph",
        "title": "Kosmograph",
        "description": "Jobs, workers, engine, queue and ledger of Kosmograph. Written by deploy/grafana/dashboard.py.",
        "tags": ["kosmograph"],
        "schemaVersion": 41,
        "editable": False,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "timezone": "browser",
        "annotations": {"list": [_alerts()]},
        "templating": {"list": [_datasource(), _instances()]},
        "panels": list(_placed()),
    }


def _datasource() -> dict[str, Any]:
    return {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus", "hide": 0}


def _instances() -> dict[str, Any]:
    query = "label_values(kosmograph_slots, instance)"
    return {
        "name": "instance",
        "label": "Worker",
        "type": "query",
        "datasource": SOURCE,
        "definition": query,
        "query": {"query": query, "refId": "instances"},
        "refresh": 2,
        "sort": 1,
        "includeAll": True,
        "multi": True,
        "allValue": ".*",
        "current": {"text": "All", "value": "$__all"},
    }


def _alerts() -> dict[str, Any]:
    return {
        "name": "Alerts",
        "datasource": SOURCE,
        "enable": True,
        "expr": 'ALERTS{alertname=~"Kosmograph.*", alertstate="firing"}',
        "iconColor": "red",
        "titleFormat": "{{alertname}}",
    }


def _placed() -> Iterator[dict[str, Any]]:
    """The panels of all rows, each with its place and number."""
    number = top = 0
    for row in ROWS:
        number += 1
        heading = {"id": number, "type": "row", "title": row.title, "collapsed": False, "panels": []}
        yield heading | {"gridPos": _at(0, top)}
        top += 1
        left, height = 0, 4 if row.panels[0].kind == "stat" else 8
        for panel in row.panels:
            number += 1
            yield _drawn(panel, number) | {"gridPos": _at(left, top, panel.width, height)}
            left += panel.width
            if left == WIDTH:
                left, top = 0, top + height
        top += height if left else 0


def _at(left: int, top: int, width: int = WIDTH, height: int = 1) -> dict[str, int]:
    return {"x": left, "y": top, "w": width, "h": height}


def _drawn(panel: Panel, number: int) -> dict[str, Any]:
    options: dict[str, Any] = {}
    custom: dict[str, Any] = {}
    if panel.kind == "timeseries":
        custom = {"fillOpacity": 30 if panel.stacked else 8, "lineWidth": 1, "showPoints": "never"}
        custom["stacking"] = {"mode": "normal" if panel.stacked else "none"}
        options = {"legend": {"displayMode": "list", "placement": "bottom"}}
        options["tooltip"] = {"mode": "multi", "sort": "desc"}
    elif panel.kind in ("stat", "bargauge"):
        options = {"reduceOptions": {"calcs": ["lastNotNull"]}, "orientation": "auto"}
    limits = {"min": 0, "max": 1} if panel.unit == "percentunit" else {"min": 0}
    drawn = {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.description,
        "datasource": SOURCE,
        "fieldConfig": {"defaults": {"unit": panel.unit, **limits, "custom": custom}, "overrides": []},
        "options": options,
        "targets": [_target(panel, at, legend, query) for at, (legend, query) in enumerate(panel.queries)],
    }
    if panel.kind == "table":
        hidden = dict.fromkeys(("Time", "Value", "__name__", "job"), True)
        drawn["transformations"] = [{"id": "organize", "options": {"excludeByName": hidden}}]
    return drawn


def _target(panel: Panel, at: int, legend: str, query: str) -> dict[str, Any]:
    instant = panel.kind in ("table", "bargauge")
    return {
        "refId": "ABCDEF"[at],
        "datasource": SOURCE,
        "expr": query,
        "legendFormat": legend or "__auto",
        "range": not instant,
        "instant": instant,
        **({"format": "table"} if panel.kind == "table" else {}),
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(dashboard(), indent=1, ensure_ascii=False) + "\n")
