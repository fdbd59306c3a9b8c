"""Attention of one token over the cache, by PyTorch and by Triton, is what its definition says.

The kernel runs under Triton's interpreter, which must be chosen before Triton is imported: so in a process of its own.
"""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from worker.attention import decode_attention_on, sdpa_decode_attention

CHECKS = Path(__file__).parent / "attention_checks.py"


def run_checks(which: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(CHECKS), "-k", which]
    return subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=False)


@pytest.mark.skipif(not find_spec("triton"), reason="Triton is not installed")
def test_both_ways_are_what_the_definition_says() -> None:
    run = run_checks("", TRITON_INTERPRET="1")
    assert run.returncode == 0, run.stdout + run.stderr
    assert "passed" in run.stdout
    assert "skipped" not in run.stdout


@pytest.mark.skipif(bool(find_spec("triton")), reason="Triton is installed: the test above has both ways")
def test_way_of_pytorch_is_what_the_definition_says() -> None:
    run = run_checks("sdpa")
    assert run.returncode == 0, run.stdout + run.stderr


def test_cpu_has_the_way_of_pytorch() -> None:
    assert decode_attention_on(torch.device("cpu")) is sdpa_decode_attention


def test_gpu_without_triton_has_the_way_of_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.attention.find_spec", lambda name: None)
    assert decode_attention_on(torch.device("cuda")) is sdpa_decode_attention
