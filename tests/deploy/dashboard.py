"""The dashboard's queries, and the metrics that there are."""

import json
import re
from collections.abc import Iterator
from typing import Any

from tests.deploy.containers import DEPLOY

FAMILIES = {
    "worker_info", "images_total", "fetch_seconds", "decode_seconds", "queue_wait_seconds", "encode_seconds",
    "decode_step_seconds", "commit_seconds", "tokens_total", "generations_total", "encoded_images_total",
    "engine_busy_seconds_total", "work_seconds_total", "broker_reconnects_total", "messages_refused_total",
    "loader_deaths_total", "slots", "slots_in_use", "requests_waiting", "chunks_in_work",
    "last_progress_timestamp_seconds", "chunks", "jobs", "job_images", "job_paused", "oldest_lease_seconds", "workers",
    "chunks_sent_total", "chunks_republished_total", "outages_total", "queue_length",
}  # fmt: skip
"""Every metric of a worker and of a dispatcher, without the `kosmograph_` in front."""

OF_UNFINISHED_JOBS = {"job_images", "job_paused", "queue_length"}
"""Those that have no series when every job is finished."""


def panels() -> list[dict[str, Any]]:
    """The dashboard's panels without the headings."""
    every = json.loads((DEPLOY / "grafana" / "dashboards" / "kosmograph.json").read_text())["panels"]
    return [panel for panel in every if panel["type"] != "row"]


def queries(window: str = "1m") -> Iterator[tuple[str, str]]:
    """Each query with its panel's title, as Grafana sends it: all workers, rates over this window."""
    filled = {"$__rate_interval": window, "$__range": window, "$instance": ".*"}
    for panel in panels():
        for target in panel["targets"]:
            query = target["expr"]
            for name, value in filled.items():
                query = query.replace(name, value)
            yield panel["title"], query


def families_of(query: str) -> set[str]:
    """The metrics that a query asks for."""
    named = re.findall(r"kosmograph_(\w+)", query)
    return {re.sub(r"_(bucket|sum|count)$", "", name) for name in named}
