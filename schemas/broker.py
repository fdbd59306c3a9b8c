"""What producer and worker must agree on about Redis: Celery's settings, and what a broker is called."""

import re
from typing import Any

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from schemas.errors import UsageError

EMBEDDED = "embedded:"
"""How the names of brokers begin that live and die with one run of `annotate`."""

FORM = "redis://:PASSWORD@HOST:6379/DATABASE"

CELERY_SETTINGS: dict[str, Any] = {
    # the ledger is the truth: no results, and a message is acknowledged when its chunk is committed
    "task_ignore_result": True,
    "task_acks_late": True,
    "task_acks_on_failure": True,
    "task_acks_on_timeout": True,
    "task_reject_on_worker_lost": False,
    "task_publish_retry": False,
    "task_serializer": "json",
    "accept_content": ["json"],
    "task_create_missing_queues": True,  # a queue is named after its model
    "worker_prefetch_multiplier": 1,
    "worker_enable_remote_control": False,
    "worker_send_task_events": False,
    "worker_enable_prefetch_count_reduction": False,
    "worker_hijack_root_logger": False,
    "worker_cancel_long_running_tasks_on_connection_loss": False,
    "broker_connection_retry": True,
    "broker_connection_retry_on_startup": True,
    "broker_connection_max_retries": None,
    "broker_channel_error_retry": True,  # a Redis that is full refuses what it should write down: no reason to end
    "broker_pool_limit": 4,
    "broker_transport_options": {
        # the second net: leases in SQL are the first, and faster
        "visibility_timeout": 1800,
        "unacked_restore_interval": 30,
        "unacked_restore_throttle": 1,
        # without these a half-open connection is waited for without end
        "socket_timeout": 30,
        "socket_connect_timeout": 5,
        "socket_keepalive": True,
        "health_check_interval": 10,
        # priority lives in SQL: with steps, a queue is several lists and its length a guess
        "priority_steps": [0],
    },
}


def broker_name(url: str) -> str:
    """The broker by host and database, without user and password: what the ledger keeps beside a queued chunk.

    Raises UsageError for what Celery could not make a connection of.
    """
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        # the text may hold a password: it is not repeated
        raise UsageError(f"the broker URL is not of the form {FORM}") from None
    if parsed.drivername not in ("redis", "rediss", "redis+socket"):
        raise UsageError(f"the broker must be a Redis, as in {FORM}, not {parsed.drivername}")
    behind_socket = parsed.drivername == "redis+socket"
    if not behind_socket and (not re.fullmatch(r"\d*", parsed.database or "") or "password" in parsed.query):
        raise UsageError(f"the broker URL is not of the form {FORM}")
    return anonymous(parsed).set(query={}).render_as_string()


def anonymous(url: URL) -> URL:
    """The URL without user and password. (`URL.set` takes None for what is not to be changed.)"""
    return URL.create(url.drivername, host=url.host, port=url.port, database=url.database, query=url.query)
