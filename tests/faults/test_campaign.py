"""A short campaign of random faults on each database; `make faults` is the long one."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SEED = 18
"""Kinds that take no ten seconds: workers, loaders, Redis and PostgreSQL killed and stopped, a pause, a listing cut."""


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_random_faults_lose_nothing_and_double_nothing(database: str) -> None:
    """Given a running job, when eight faults of all kinds hit it, then each image has exactly one outcome."""
    options = ("--faults", "8", "--seed", str(SEED), "--db", database, "--images", "1000")
    command = [sys.executable, "-m", "tests.faults.campaign.run", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
    (totals,) = [line for line in done.stdout.splitlines() if line.startswith("| all ")]
    cells = [cell.strip() for cell in totals.strip("|").split("|")]
    assert cells[:3] == ["all", database, "8"]
    assert cells[-4:] == ["0", "0", "0", "0"]
