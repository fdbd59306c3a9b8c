"""The policy file, under an S3 that enforces it, and lists from an S3 Inventory."""

import csv
import gzip
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import boto3
import httpx
import pytest

from producer.sources.filters import Filters
from producer.sources.manifest import ManifestSource
from producer.sources.s3 import S3Source
from schemas.errors import PermanentFailure
from schemas.settings import Settings
from schemas.storage import StorageOptions, s3_client
from tests.conftest import S3
from tests.deploy.containers import DEPLOY
from worker.images import Limits
from worker.s3 import ObjectReader

POLICY = DEPLOY / "aws" / "read-images.json"
BUCKET = "example-archive"


@pytest.fixture
def enforced(s3: S3, monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """Switches to a user with the policy, and S3 to asking who it is; back when the test ends."""
    iam = boto3.client("iam", endpoint_url=s3.endpoint, region_name="us-east-1")
    iam.create_user(UserName="worker")
    iam.put_user_policy(UserName="worker", PolicyName="read", PolicyDocument=POLICY.read_text())
    key = iam.create_access_key(UserName="worker")["AccessKey"]
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", key["AccessKeyId"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", key["SecretAccessKey"])
    return lambda on: httpx.post(
        f"{s3.endpoint}/moto-api/reset-auth", content=b"0" if on else b"inf"
    ).raise_for_status()


def test_policy_lets_list_and_read_the_archive_and_nothing_else(s3: S3, enforced: Callable[[bool], None]) -> None:
    s3.client.create_bucket(Bucket=BUCKET)
    s3.client.put_object(Bucket=BUCKET, Key="2024/a.jpg", Body=b"a picture")
    s3.put("b.jpg", b"of another bucket")
    storage = StorageOptions(s3.endpoint)
    enforced(True)
    try:
        listed = list(S3Source(s3_client(storage), BUCKET, "2024/", Filters()).list())
        assert [str(one.item.uri) for one in listed] == [f"s3://{BUCKET}/2024/a.jpg"]  # type: ignore[union-attr]
        reader = ObjectReader(Limits.from_settings(Settings()), storage)
        assert reader.read(BUCKET, "2024/a.jpg").data == b"a picture"
        with pytest.raises(PermanentFailure, match="access_denied"):
            reader.read(s3.bucket, "b.jpg")
        with pytest.raises(Exception, match="AccessDenied"):
            s3_client(storage).put_object(Bucket=BUCKET, Key="2024/a.jpg", Body=b"")
    finally:
        enforced(False)


def test_inventory_becomes_a_list_of_what_is_there_now(tmp_path: Path) -> None:
    rows = [
        [BUCKET, "2024/a%20b.jpg", "v2", "true", "false", "9"],
        [BUCKET, "2024/a%20b.jpg", "v1", "false", "false", "9"],
        [BUCKET, "2024/gone.jpg", "v3", "true", "true", ""],
        [BUCKET, "2024/%C3%BC%2B,.jpg", "v1", "true", "false", "9"],
    ]
    data = tmp_path / "part.csv.gz"
    with gzip.open(data, "wt", newline="") as file:
        csv.writer(file, quoting=csv.QUOTE_ALL).writerows(rows)
    manifest = tmp_path / "manifest.json"
    schema = "Bucket, Key, VersionId, IsLatest, IsDeleteMarker, Size"
    manifest.write_text(json.dumps({"fileSchema": schema, "files": [{"key": "x/data/part.csv.gz", "size": 1}]}))
    command = [sys.executable, DEPLOY / "aws" / "inventory.py", manifest]
    done = subprocess.run([*command, data], capture_output=True, check=True)
    made = tmp_path / "list.csv"
    made.write_bytes(done.stdout)
    listed = [one.item for one in ManifestSource(made, "list", Filters()).list()]
    assert [one and one.uri for one in listed] == [f"s3://{BUCKET}/2024/a b.jpg", f"s3://{BUCKET}/2024/ü+,.jpg"]
    lacking = subprocess.run([*command, tmp_path / "other.csv.gz"], capture_output=True, text=True)
    assert (lacking.returncode, "part.csv.gz of the manifest is not among" in lacking.stderr) == (1, True)
