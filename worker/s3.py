"""Objects of S3, read within the limits, and what S3's errors mean for an image.

Messages never hold credentials: they are made of error codes, names of exceptions and our own words.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from botocore import exceptions

from schemas.errors import Code, ImageFailure, KosmographError, PermanentFailure, TransientFailure
from schemas.storage import StorageOptions, s3_client
from schemas.uris import s3_version
from worker.fetch import Fetched, check_bytes, late
from worker.images import Limits

if TYPE_CHECKING:
    from botocore.response import StreamingBody
    from mypy_boto3_s3 import S3Client

ATTEMPTS = 3
CONNECT_TIMEOUT_S = 5.0
BLOCK_BYTES = 1 << 16


class ObjectReader:
    """Reads objects over one client, which is made with the first of them."""

    def __init__(self, limits: Limits, storage: StorageOptions) -> None:
        self._limits = limits
        self._storage = storage
        self._client: S3Client | None = None

    def read(self, bucket: str, key: str) -> Fetched:
        """The bytes and the ETag of one GET. Raises PermanentFailure or TransientFailure."""
        if not bucket or not key:
            raise PermanentFailure(Code.NOT_FOUND, "this URI names no object: s3://BUCKET/KEY is needed")
        deadline = time.monotonic() + self._limits.fetch_timeout_s
        with s3_failures(bucket):
            if self._client is None:
                self._client = connect(self._storage, self._limits.fetch_timeout_s)
            answer = self._client.get_object(Bucket=bucket, Key=key)
            version = s3_version(answer.get("ETag", ""))
            body: Any = answer["Body"]
            with body as stream:  # which, half read, drops the connection and with it the rest
                stream.read = stream.read1  # what is here: the deadline holds for a server that drips
                try:
                    return Fetched(self._read(body, answer.get("ContentLength", 0), deadline), version)
                except ImageFailure as failure:
                    failure.version = version
                    raise

    def _read(self, body: StreamingBody, length: int, deadline: float) -> bytes:
        check_bytes(length, self._limits)
        blocks, total = [], 0
        while block := body.read(BLOCK_BYTES):
            blocks.append(block)
            total += len(block)
            check_bytes(total, self._limits)  # a server need not send what it said, nor ever end
            if time.monotonic() > deadline:
                raise late(self._limits.fetch_timeout_s)
        return b"".join(blocks)


def connect(options: StorageOptions, timeout_s: float) -> S3Client:
    """A client whose attempts fit into `timeout_s`. Raises PermanentFailure where the settings allow none."""
    each_s = timeout_s / ATTEMPTS
    connect_timeout_s = min(CONNECT_TIMEOUT_S, each_s)
    try:
        return s3_client(options, connect_timeout_s=connect_timeout_s, read_timeout_s=each_s, attempts=ATTEMPTS)
    except KosmographError as error:
        raise PermanentFailure(Code.ACCESS_DENIED, str(error)) from None


DENIED = (
    PermanentFailure,
    Code.ACCESS_DENIED,
    "S3 refused ({code}): the credentials need s3:GetObject on s3://{bucket}",
)
SLOW_DOWN = (TransientFailure, Code.THROTTLED, "S3 asks to slow down ({code})")
SERVER_ERROR = (TransientFailure, Code.STORAGE_UNAVAILABLE, "S3 has an error of its own ({code})")
NO_OBJECT = (PermanentFailure, Code.NOT_FOUND, "no such object in s3://{bucket}")
NO_BUCKET = (
    PermanentFailure,
    Code.NOT_FOUND,
    "no such bucket: {bucket}; check the name, and KOSMOGRAPH_S3_ENDPOINT_URL",
)
EXPIRED = (PermanentFailure, Code.ACCESS_DENIED, "the credentials have expired ({code}): renew them, then retry")
ARCHIVED = (PermanentFailure, Code.ACCESS_DENIED, "the object is archived (Glacier): restore it, then retry")
CLOCK = (PermanentFailure, Code.ACCESS_DENIED, "this machine's clock is wrong ({code}): set it, then retry")
SLOW_CLIENT = (TransientFailure, Code.TIMEOUT, "S3 gave the request up ({code})")

BY_CODE = {
    "NoSuchKey": NO_OBJECT,
    "NoSuchBucket": NO_BUCKET,
    "InvalidBucketName": NO_BUCKET,
    "InvalidObjectState": ARCHIVED,
    "ExpiredToken": EXPIRED,
    "RequestTimeTooSkewed": CLOCK,
    "RequestTimeout": SLOW_CLIENT,
    "SlowDown": SLOW_DOWN,
}
BY_STATUS = {404: NO_OBJECT, 429: SLOW_DOWN, 503: SLOW_DOWN}

NO_CREDENTIALS = (
    "no usable credentials for S3 ({name}): set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY;"
    " KOSMOGRAPH_S3_ANONYMOUS=true reads public buckets"
)
CREDENTIAL_ERRORS = (
    exceptions.NoCredentialsError,
    exceptions.PartialCredentialsError,
    exceptions.CredentialRetrievalError,
    exceptions.TokenRetrievalError,
    exceptions.SSOError,
    exceptions.LoginError,
    exceptions.ProfileNotFound,
)
NETWORK_ERRORS = (
    exceptions.ConnectionError,
    exceptions.HTTPClientError,
    exceptions.IncompleteReadError,
    exceptions.FlexibleChecksumError,
)


def refusal(code: str, status: int, bucket: str) -> ImageFailure:
    """The failure that S3's error code, else the HTTP status, stands for."""
    kind, ours, text = BY_CODE.get(code) or BY_STATUS.get(status) or (SERVER_ERROR if status >= 500 else DENIED)
    return kind(ours, text.format(code=code or status, bucket=bucket))


@contextmanager
def s3_failures(bucket: str) -> Iterator[None]:
    """Turns what botocore raises into the failure that it means."""
    try:
        yield
    except exceptions.ClientError as error:
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        raise refusal(error.response.get("Error", {}).get("Code", ""), status, bucket) from None
    except CREDENTIAL_ERRORS as error:
        raise PermanentFailure(Code.ACCESS_DENIED, NO_CREDENTIALS.format(name=type(error).__name__)) from None
    except (exceptions.ReadTimeoutError, exceptions.ConnectTimeoutError):
        raise TransientFailure(Code.TIMEOUT, "S3 did not answer in time") from None
    except NETWORK_ERRORS as error:
        raise TransientFailure(Code.STORAGE_UNAVAILABLE, f"S3 was not reached ({type(error).__name__})") from None
    except (exceptions.ParamValidationError, UnicodeError):
        text = f"no such object: the bucket {bucket!r}, or the key, is no valid name"
        raise PermanentFailure(Code.NOT_FOUND, text) from None
    except exceptions.BotoCoreError as error:
        text = f"boto3 cannot read s3://{bucket} ({type(error).__name__}): see ~/.aws/config and the AWS_* variables"
        raise PermanentFailure(Code.ACCESS_DENIED, text) from None
