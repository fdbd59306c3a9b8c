"""What is compiled is one size of batches; all others, and all once compiling has failed, go the plain way.

The compiler itself is left out: a stand-in for `torch.compile` shows what would go through it.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from worker.compilation import compiled_for
from worker.engine import Engine
from worker.runner import IMAGES_AT_ONCE

TIMEOUT_S = 60


@pytest.fixture
def compiler(monkeypatch: pytest.MonkeyPatch) -> Any:
    """`compiler.sizes`: of the batches that went through compiled code. `compiler.error`: what it raises."""

    class Compiler:
        sizes: list[int]
        error: BaseException | None = None

        def __call__(self, function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
            def fast(batch: torch.Tensor, *rest: Any) -> Any:
                self.sizes.append(len(batch))
                if self.error:
                    raise self.error
                return function(batch, *rest)

            return fast

    compiler = Compiler()
    compiler.sizes = []
    monkeypatch.setattr("torch.compile", compiler)
    return compiler


def test_only_full_batches_are_compiled(compiler: Any) -> None:
    double = compiled_for(4, lambda batch: batch * 2, after=0)
    for size in (1, 4, 3, 4, 5):
        assert double(torch.ones(size)).tolist() == [2] * size
    assert compiler.sizes == [4, 4]


def test_nothing_is_compiled_before_so_many_full_batches(compiler: Any) -> None:
    double = compiled_for(4, lambda batch: batch * 2, after=2)
    for size in (4, 1, 4, 3, 4, 4):
        assert double(torch.ones(size)).tolist() == [2] * size
    assert compiler.sizes == [4, 4]


def test_compiler_that_fails_is_left_alone_from_then_on(compiler: Any, caplog: pytest.LogCaptureFixture) -> None:
    compiler.error = torch._dynamo.exc.BackendCompilerFailed(lambda: None, RuntimeError("no g++ here"), None)
    double = compiled_for(2, lambda batch: batch * 2, after=0)
    assert [double(torch.ones(2)).tolist() for _ in range(3)] == [[2, 2]] * 3
    assert compiler.sizes == [2]
    assert "torch.compile failed, on without it" in caplog.text


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("of the model")])
def test_error_of_the_model_is_not_the_compilers(compiler: Any, error: Exception) -> None:
    compiler.error = error
    double = compiled_for(2, lambda batch: batch * 2, after=0)
    for _ in range(2):
        with pytest.raises(type(error)):
            double(torch.ones(2))
    assert compiler.sizes == [2, 2]


def test_compiled_engine_says_the_same(rough: Any, compiler: Any, gate: Any) -> None:
    """Full batches of images one way, the rest the other."""
    requests = [rough.request(seed) for seed in range(40)]
    with rough.at_entrance(gate), Engine(rough.kosmos, 32, compile_after=0) as engine:
        futures = [engine.submit(request) for request in requests]
        gate.opened.set()
        rough.check(requests, [future.result(TIMEOUT_S) for future in futures])
        assert engine.figures.images == 40
    assert set(compiler.sizes) == {IMAGES_AT_ONCE["cpu"]}
