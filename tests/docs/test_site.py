"""The site is built without a complaint, and asks nothing of other hosts."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

from tests.docs.pages import NAMES, ROOT

FROM_ELSEWHERE = re.compile(r"<(?:script|link|img|iframe|source)\b[^>]*\b(?:src|href)=\"(?:https?:)?//[^\"]+\"")


def test_site_is_whole_and_reads_nothing_from_other_hosts(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    )
    assert done.returncode == 0, done.stderr
    pages = list((tmp_path / "site").rglob("*.html"))
    assert len(pages) > len(NAMES) - 2  # the README is not in it, and there is a page for what is not found
    for page in pages:
        assert not FROM_ELSEWHERE.search(page.read_text()), page
    found = {entry["location"].partition("#")[0] for entry in _index(tmp_path)}
    assert {"", "concepts/", "reference/cli/", "reference/sql/", "deploy/", "benchmarks/RESULTS/"} <= found
    assert not list((tmp_path / "site").rglob("*.py"))


def _index(folder: Path) -> list[dict[str, str]]:
    """What the search of the site looks through."""
    return list(json.loads((folder / "site/search/search_index.json").read_text())["docs"])
