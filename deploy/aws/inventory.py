"""Makes a list for `kosmograph submit @list.csv` of an S3 Inventory in CSV, whose keys are percent-encoded.

    aws s3 sync s3://inventories/archive/daily/ inventory/
    python deploy/aws/inventory.py inventory/2026-11-22T01-00Z/manifest.json inventory/data/*.csv.gz > list.csv

The manifest says which column is which, and which of the files are of this inventory. Of versions only the latest are
taken, and no delete markers.
"""

import csv
import gzip
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote_plus


def uris(manifest: Path, files: list[Path]) -> Iterator[str]:
    """Every image's URI, by the files that belong to the manifest."""
    said = json.loads(manifest.read_text())
    columns = [name.strip() for name in said["fileSchema"].split(",")]
    ours = {Path(entry["key"]).name for entry in said["files"]}
    here = {path.name: path for path in files}
    if missing := sorted(ours - here.keys()):
        sys.exit(f"inventory: {missing[0]} of the manifest is not among the files: copy them all")
    for name in sorted(ours):
        with gzip.open(here[name], "rt", encoding="utf-8", newline="") as file:
            for row in csv.reader(file):
                cells = dict(zip(columns, row, strict=True))
                if cells.get("IsLatest", "true") == "true" and cells.get("IsDeleteMarker", "false") == "false":
                    yield f"s3://{cells['Bucket']}/{unquote_plus(cells['Key'])}"


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit("usage: inventory.py manifest.json FILE.csv.gz... > list.csv")
    writer = csv.writer(sys.stdout)
    writer.writerow(["uri"])
    writer.writerows([uri] for uri in uris(Path(sys.argv[1]), [Path(name) for name in sys.argv[2:]]))
