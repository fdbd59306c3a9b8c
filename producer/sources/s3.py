"""A prefix of an S3 bucket."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError, ParamValidationError
from botocore.exceptions import ConnectionError as NoConnectionError

from producer.sources.filters import Filters, Skip
from producer.sources.source import Listed, listed
from schemas.errors import SourceError
from schemas.items import Item
from schemas.storage import without_secrets
from schemas.uris import printable, s3_version, storable

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import ObjectTypeDef

ARCHIVES = frozenset({"GLACIER", "DEEP_ARCHIVE"})
"""Classes that a GET cannot read. Whoever has restored objects of them names these in a manifest."""


class S3Source:
    """The keys that begin with a prefix, in the order of their UTF-8 bytes, as S3 lists them.

    A prefix that is a whole key names that object, and is taken whatever its name is.
    """

    def __init__(self, client: S3Client, bucket: str, prefix: str, filters: Filters, page_size: int = 1000) -> None:
        self.spec = f"s3://{bucket}/{prefix}"
        self.roots: Sequence[str] = ()
        self._client = client
        self._bucket = bucket
        self._prefix = prefix
        self._folder = prefix.rfind("/") + 1
        self._filters = filters
        self._page_size = page_size

    def list(self, after: str | None = None) -> Iterator[Listed]:
        """The cursor is the key, percent-encoded."""
        start: dict[str, Any] = {"StartAfter": unquote(after)} if after else {}
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=self._bucket,
            Prefix=self._prefix,
            PaginationConfig={"PageSize": self._page_size},
            **start,
        )
        try:
            for page in pages:
                if "IsTruncated" not in page:  # any page of XML, or none at all, would pass for the end of the listing
                    raise SourceError(
                        f"{printable(self.spec)}: the answer is not S3's; check KOSMOGRAPH_S3_ENDPOINT_URL"
                    )
                for entry in page.get("Contents", ()):
                    yield listed(quote(entry["Key"]), self._look(entry))
        except (BotoCoreError, ClientError) as error:
            raise SourceError(self._explain(error)) from None

    def _look(self, entry: ObjectTypeDef) -> Item | Skip:
        key = entry["Key"]
        if key.endswith("/") and entry.get("Size") == 0:
            return Skip.FOLDER_KEY
        if not storable(key):
            return Skip.UNUSABLE
        skip = None if key == self._prefix else self._filters.skips(key[self._folder :])
        if skip is None and entry.get("StorageClass") in ARCHIVES:
            skip = Skip.ARCHIVED
        return skip or Item(f"s3://{self._bucket}/{key}", s3_version(entry.get("ETag", "")), entry.get("Size"))

    def _explain(self, error: Exception) -> str:
        """One line with the remedy. Of the server's answer only the code: its words may repeat a key."""
        place, endpoint = printable(self.spec), without_secrets(self._client.meta.endpoint_url)
        if isinstance(error, ClientError):
            code = error.response["Error"].get("Code") or str(error.response["ResponseMetadata"]["HTTPStatusCode"])
            return _explain_code(code, place, endpoint)
        if isinstance(error, ParamValidationError):
            return f"{place}: no bucket can have this name; write s3://bucket/prefix"
        if isinstance(error, (NoConnectionError, HTTPClientError)):
            return f"{place}: no answer from {endpoint}; check KOSMOGRAPH_S3_ENDPOINT_URL and the network"
        return (
            f"{place}: no usable credentials for S3 ({type(error).__name__}); set AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY or AWS_PROFILE, or KOSMOGRAPH_S3_ANONYMOUS=true for a public bucket"
        )


_REMEDIES = {
    "NoSuchBucket": "there is no such bucket at {endpoint}; check its name and KOSMOGRAPH_S3_ENDPOINT_URL",
    "AccessDenied": "access denied; the credentials need s3:ListBucket (or the bucket is not public)",
    "InvalidAccessKeyId": "S3 does not know these credentials; check AWS_ACCESS_KEY_ID or AWS_PROFILE",
    "SignatureDoesNotMatch": "S3 refuses these credentials; check AWS_SECRET_ACCESS_KEY or AWS_PROFILE",
    "ExpiredToken": "the credentials have expired; renew them",
    "InvalidBucketName": "no bucket can have this name; write s3://bucket/prefix",
    "PermanentRedirect": "the bucket is in another region; set AWS_DEFAULT_REGION to its own",
    "RequestTimeTooSkewed": "the clock of this machine is wrong; set it",
}
_REMEDIES |= {
    "403": _REMEDIES["AccessDenied"],
    "301": _REMEDIES["PermanentRedirect"],
    "InvalidToken": _REMEDIES["ExpiredToken"],
    "AuthorizationHeaderMalformed": _REMEDIES["PermanentRedirect"],
}


_UNKNOWN_CODE = "{endpoint} answered {code}; check KOSMOGRAPH_S3_ENDPOINT_URL, or try again later"


def _explain_code(code: str, place: str, endpoint: str) -> str:
    return f"{place}: " + _REMEDIES.get(code, _UNKNOWN_CODE).format(endpoint=endpoint, code=printable(code))
