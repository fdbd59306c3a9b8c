"""Logs by structlog: for people on a terminal, JSON lines elsewhere. They go to standard error."""

import logging
import sys
from typing import Any

import structlog

from schemas.settings import Settings

QUIET = ("celery", "kombu", "botocore", "alembic", "httpx", "huggingface_hub", "torch", "transformers")


def configure_logs(settings: Settings, **context: Any) -> None:
    """Set up logging for this process; `context` (a worker's name, say) is in each of its lines.

    So is what a thread has bound with `structlog.contextvars` (its chunk, say), which no other thread inherits.
    """
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        lambda logger, method, event: context | event,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    for_people = settings.log_format == "console" or (settings.log_format == "auto" and sys.stderr.isatty())
    renderer = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty()) if for_people else _json()
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    level = settings.log_level.upper()
    logging.basicConfig(handlers=[handler], level=level, force=True)
    for name in QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("urllib3").setLevel(logging.ERROR)  # its warnings name whole addresses, with what is secret there
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level)),
        cache_logger_on_first_use=True,
    )


def _json() -> Any:
    return structlog.processors.JSONRenderer(ensure_ascii=False)
