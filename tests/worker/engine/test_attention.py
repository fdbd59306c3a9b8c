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


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here, where the kernel works")
def test_where_the_kernel_does_not_run_there_is_the_way_of_pytorch(caplog: pytest.LogCaptureFixture) -> None:
    assert decode_attention_on(torch.device("cuda")) is sdpa_decode_attention
    assert "no Triton kernel here, on without it" in caplog.text


COMPILE = """
from triton import compile
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from worker.attention_kernel import TILE, _attend
names = ("qkv_ptr", "cache_ptr", "positions_ptr", "out_ptr", "scale", "length", "heads", "head_dim", "tile")
kinds = ("*bf16", "*bf16", "*i64", "*bf16", "fp32", "i32", "constexpr", "constexpr", "constexpr")
source = ASTSource(_attend, signature=dict(zip(names, kinds)), constexprs={(6,): 32, (7,): 64, (8,): TILE})
print(len(compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": 2}).asm["cubin"]), "bytes")
"""


@pytest.mark.skipif(not find_spec("triton"), reason="Triton is not installed")
def test_kernel_compiles_for_a_gpu_which_the_interpreter_does_not_prove(tmp_path: Path) -> None:
    """For an H100, with the shapes of the real model."""
    environment = os.environ | {"TRITON_CACHE_DIR": str(tmp_path), "TRITON_INTERPRET": "0"}
    run = subprocess.run([sys.executable, "-c", COMPILE], env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stdout.endswith("bytes\n")
