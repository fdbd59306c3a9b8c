"""The settings: flags, then `KOSMOGRAPH_*` variables, then the defaults below."""

from typing import Literal

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from schemas.environment import DEFAULT_DB as DEFAULT_DB
from schemas.environment import PREFIX, our_variables
from schemas.errors import UsageError

DEFAULT_MODEL = "microsoft/kosmos-2-patch14-224"


class Settings(BaseSettings):
    """Everything that can be set from outside. Each field is a variable: `db` is `KOSMOGRAPH_DB`."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="forbid", frozen=True)

    # where things are
    db: str = Field(DEFAULT_DB, repr=False, description="database URL")
    broker: str = Field("", repr=False, description="Redis URL; empty starts one of our own")
    s3_endpoint_url: str = Field("", description="an S3 server other than Amazon's")
    s3_anonymous: bool = Field(False, description="unsigned requests, for public buckets")
    allow_http: bool = Field(False, description="images by http(s) URL, from public servers only")

    # what does the work
    model: str = Field(DEFAULT_MODEL, description="hub id, local folder, `demo` or `null`")
    device: str = Field("auto", description="auto, cpu, cuda or cuda:N")
    workers: int = Field(1, ge=0, description="worker processes that `annotate` starts; 0 where some run already")
    slots: int = Field(0, ge=0, description="rows that the model decodes at once; 0: from free memory")
    prefetch_bytes: int = Field(256 * 2**20, gt=0, description="decoded images in a worker; one is 150 kB")
    loader_processes: int = Field(0, ge=0, description="that fetch and decode; 0: from the number of cores")
    torch_threads: int = Field(0, ge=0, description="on a CPU; 0: from the number of cores")

    # how much one image may cost
    max_bytes: int = Field(256 * 2**20, gt=0, description="of a file")
    max_pixels: int = Field(178_956_970, gt=0, description="of an image; Pillow's own error limit")
    max_memory_bytes: int = Field(1536 * 2**20, gt=0, description="of one loader process, over its baseline")
    decode_timeout_s: float = Field(20.0, gt=0, description="to decode one image")
    fetch_timeout_s: float = Field(60.0, gt=0, description="to fetch one image")

    # ledger and queue
    chunk_size: int = Field(64, ge=1, le=10_000, description="images that travel together")
    lease_s: float = Field(40.0, gt=0, description="how long a silent worker keeps its chunks")
    requeue_grace_s: float = Field(20.0, ge=0, description="what the queue has lost is sent again after")
    queue_low: int = Field(64, ge=1, description="the dispatcher refills below this many messages")
    queue_high: int = Field(256, ge=1, description="the dispatcher refills up to this many")
    dispatch_interval_s: float = Field(0.5, gt=0, description="between two looks of the dispatcher")
    max_tries: int = Field(5, ge=1, description="attempts before a transient failure is recorded")
    retry_base_s: float = Field(5.0, ge=0, description="doubles with each try, with jitter")
    breaker_images: int = Field(100, ge=1, description="source faults in a row that pause a job")

    # the morning after
    notify: str = Field("", repr=False, description="URL or command that is told when a job ends or pauses")

    # the gallery
    gallery_token: str = Field("", repr=False, description="what a browser must know; empty: nothing, on loopback")
    gallery_cache: str = Field("", description="folder of its thumbnails; empty: one in the user's cache folder")
    gallery_cache_bytes: int = Field(512 * 2**20, gt=0, description="the most they take")

    # metrics and health
    metrics_port: int = Field(0, ge=0, le=65_535, description="of a worker or dispatcher; 0: none are served")
    metrics_host: str = Field("127.0.0.1", description="the address that they are served on")

    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="the least that is logged")
    log_format: Literal["auto", "console", "json"] = Field("auto", description="auto: JSON unless on a terminal")


def load_settings(**flags: object) -> Settings:
    """The settings with `flags` on top (None is a flag that was not given).

    Raises UsageError for an unknown `KOSMOGRAPH_` variable and for a value that does not fit.
    """
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    if unknown := sorted(our_variables().keys() - known):
        raise UsageError(f"unknown setting {unknown[0]} in the environment; known are {', '.join(sorted(known))}")
    try:
        return Settings(**{name: value for name, value in flags.items() if value is not None})  # type: ignore[arg-type]
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        name = PREFIX + str(first["loc"][0]).upper()
        raise UsageError(f"{name}: {first['msg']}") from None


def environment(settings: Settings) -> dict[str, str]:
    """The settings as variables for a child process: all of them, lest it finds others in its environment."""
    return {PREFIX + name.upper(): str(value) for name, value in settings.model_dump().items()}
