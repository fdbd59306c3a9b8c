"""The GPU benchmark works from one end to the other, at toy size on a CPU, with no more than a bare box has."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.gpu.__main__ import main

ROOT = Path(__file__).parents[2]
PARTS = {"probe", "identity", "phases", "rates", "summary", "gap"}
ON_A_BARE_BOX = """
import sys
absent = ("accelerate", "alembic", "boto3", "botocore", "celery", "kombu", "psutil", "psycopg", "pyarrow", "pydantic",
          "pydantic_settings", "prometheus_client", "redis", "sqlalchemy", "structlog")
sys.modules.update(dict.fromkeys(absent))
import worker.attention, worker.engine, worker.images, worker.model, benchmarks.gpu.__main__
print(*sorted({name.partition(".")[0] for name in sys.modules} & {"schemas", "producer", "catalog", "kosmograph"}))
print(*sorted(name for name in sys.modules if name.startswith("schemas.")))
"""


def python(*arguments: str) -> str:
    """What it prints, in the repository's root."""
    command = [sys.executable, *arguments]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    path = tmp_path_factory.mktemp("gpu") / "figures.json"
    python("-m", "benchmarks.gpu", "--toy", "--device", "cpu", "--json", str(path))
    found: dict[str, Any] = json.loads(path.read_text())["parts"]
    return found


def test_every_part_runs_and_writes_its_figures(parts: dict[str, Any]) -> None:
    assert set(parts) == PARTS
    assert not [part for part in parts.values() if "error" in part]
    assert parts["probe"]["copy_bytes_s"] > 0
    assert parts["probe"]["product_flop_s"] > 0
    assert [row["phase"] for row in parts["phases"]["dense"]] == ["vision", "image prefill"]
    assert [row["kernel"] for row in parts["phases"]["decode"]] == ["sdpa, eager"]


def test_engine_says_what_transformers_says(parts: dict[str, Any]) -> None:
    rows = parts["identity"]["rows"]
    assert (parts["identity"]["forced"], parts["identity"]["free"]) == (rows, rows)
    assert set(parts["identity"]["kernels"].values()) == {rows}


def test_rates_are_of_complete_captions_and_the_summary_sets_them_in_proportion(parts: dict[str, Any]) -> None:
    rows = parts["rates"]["engine"] + parts["rates"]["transformers"]
    assert rows
    assert all(row["complete"] and row["images_s"] > 0 for row in rows)
    for row in parts["summary"]["rows"]:
        assert 0 < row["occupancy"] <= 1
        assert row["prefill_share"] + row["decode_share"] + row["host_share"] == pytest.approx(1, abs=1e-6)
        assert row["roofline_share"] == pytest.approx(row["images_s"] / row["roofline_images_s"])
        assert set(row["ratios"]) == {"1", "4"}


def test_gap_is_measured_for_both(parts: dict[str, Any]) -> None:
    for name in ("engine", "transformers"):
        assert parts["gap"][name]["tokens"] > 0
        assert 0 <= parts["gap"][name]["strays"] <= 1


def test_part_that_fails_is_told_and_leaves_the_figures_of_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "figures.json"
    options = ["--toy", "--device", "cpu", "--part", "5", "1", "--json", str(path)]
    monkeypatch.setattr(sys, "argv", ["benchmarks.gpu", *options])
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    assert main() == 1
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before
    parts = json.loads(path.read_text())["parts"]
    assert "figures of probe are needed" in parts["summary"]["error"]
    assert parts["probe"]["product_flop_s"] > 0


def test_engine_and_benchmark_import_nothing_that_a_bare_box_lacks() -> None:
    packages, modules = python("-c", ON_A_BARE_BOX).splitlines()[-2:]
    assert packages == "schemas"
    assert set(modules.split()) <= {"schemas.environment", "schemas.errors", "schemas.grounding"}


def test_costs_are_those_that_were_counted_for_the_real_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """In operations × 10⁹ and bytes, as the study of the model has them."""
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks.gpu.costs import kv_bytes, prefill_flop, vision_flop, weight_bytes
    from benchmarks.models import REAL

    figures = [vision_flop(REAL) / 1e9, prefill_flop(REAL) / 1e9, weight_bytes(REAL) / 1e9, kv_bytes(REAL)]
    assert figures == pytest.approx([169.7, 172.3, 2.68, 196_608], rel=2e-3)
