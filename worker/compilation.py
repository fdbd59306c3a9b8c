"""torch.compile, for the one batch size that matters and without its risks."""

import logging
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

from worker.faults import describe

T = TypeVar("T")
log = logging.getLogger(__name__)


def compiled_for(size: int, function: Callable[..., T], *, after: int) -> Callable[..., T]:
    """The function, compiled for batches (its first argument) of exactly that size; others go the eager way.

    So do as many as `after` of that size before: compiling takes minutes, which short work never makes good. And so
    does everything once compiling has failed, for want of a compiler or whatever else: it is slower, and right.
    """
    fast: Callable[..., T] | None = torch.compile(function, dynamic=False)
    seen = 0

    def call(batch: Tensor, *rest: Tensor) -> T:
        nonlocal fast, seen
        seen += len(batch) == size
        if fast is not None and len(batch) == size and seen > after:
            try:
                return fast(batch, *rest)
            except (torch._dynamo.exc.TorchDynamoException, torch._inductor.exc.InductorError) as error:
                log.warning("torch.compile failed, on without it: %s", describe(error))
                fast = None
        return function(batch, *rest)

    return call
