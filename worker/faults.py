"""What it means that the model raised an error."""

from typing import NamedTuple, Self

import torch

_NO_MEMORY = ("out of memory", "ALLOC_FAILED", "can't allocate memory")
"""As CUDA, Triton and graphs say it, and cuBLAS, and PyTorch on a CPU: none of them by an error of its own."""


class Fault(NamedTuple):
    """An error in words and kind, without the error: its frames would hold the memory that ran out."""

    words: str
    is_out_of_memory: bool
    is_of_the_device: bool
    """A CUDA error after which nothing of this process works any more."""

    @classmethod
    def of(cls, error: BaseException) -> Self:
        memory = isinstance(error, torch.OutOfMemoryError | MemoryError) or any(it in str(error) for it in _NO_MEMORY)
        return cls(describe(error), memory, isinstance(error, torch.AcceleratorError) and not memory)


def describe(error: BaseException) -> str:
    """An error in one line, with its kind."""
    return f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"
