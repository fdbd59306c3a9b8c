"""How images are reached: S3, in the one place where its clients are made, and whether the web may be read."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from schemas.errors import SetupError, UsageError
from schemas.uris import printable

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

    from schemas.settings import Settings

ALLOW_HTTP = "--allow-http (KOSMOGRAPH_ALLOW_HTTP=true)"


@dataclass(frozen=True, slots=True)
class StorageOptions:
    """Where S3 is and who asks. Credentials are boto3's own business: variables, profiles, instance roles."""

    s3_endpoint_url: str = ""
    s3_anonymous: bool = False
    allow_http: bool = False

    @classmethod
    def of(cls, settings: Settings) -> StorageOptions:
        return cls(settings.s3_endpoint_url, settings.s3_anonymous, settings.allow_http)


def s3_client(
    options: StorageOptions,
    *,
    connect_timeout_s: float = 5.0,
    read_timeout_s: float = 60.0,
    attempts: int = 3,
    connections: int = 10,
) -> S3Client:
    """A client of its own session, which may be used by many threads. Raises UsageError for a malformed endpoint.

    boto3 is imported here, so that whoever only reads SQL or disks never loads it.
    """
    from boto3.session import Session
    from botocore import UNSIGNED
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError

    config = Config(
        connect_timeout=connect_timeout_s,
        read_timeout=read_timeout_s,
        retries={"mode": "standard", "total_max_attempts": attempts},
        max_pool_connections=connections,
        **({"signature_version": UNSIGNED} if options.s3_anonymous else {}),
    )
    try:
        return Session().client("s3", endpoint_url=options.s3_endpoint_url or None, config=config)
    except BotoCoreError as error:
        raise SetupError(f"the AWS configuration does not fit: {printable(str(error))}; see AWS_PROFILE") from None
    except ValueError:
        endpoint = without_secrets(options.s3_endpoint_url)
        raise UsageError(
            f"{endpoint!r} is no S3 endpoint; KOSMOGRAPH_S3_ENDPOINT_URL is a URL like http://127.0.0.1:9000"
        ) from None


def without_secrets(url: str) -> str:
    """Scheme, host and port of a URL: neither user nor password, nor path and query."""
    scheme, mark, rest = url.rpartition("://")
    return scheme + mark + re.split("[/?#]", rest.rpartition("@")[2], maxsplit=1)[0]
