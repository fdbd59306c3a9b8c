"""Attention of one new token per row over a static KV cache, with the append fused in: two ways, one signature."""

import logging
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from worker.faults import describe

log = logging.getLogger(__name__)

DecodeAttention = Callable[[Tensor, Tensor, Tensor, int], Tensor]
"""(qkv, cache, positions, context) → [rows, heads × head_dim]

qkv        [rows, 3, heads, head_dim]: query, key and value of each row's new token
cache      [2, slots, heads, length, head_dim]: keys and values of one layer; row i lives in slot i
positions  [rows]: the place of the new token; its key and value are written there, and keys 0 to there are attended to
context    a bound on the positions of rows that are not done: all of these are below it
"""


def sdpa_decode_attention(qkv: Tensor, cache: Tensor, positions: Tensor, context: int) -> Tensor:
    """By PyTorch's own kernels, which read all `context` places of every row and mask those behind its position."""
    rows = torch.arange(len(qkv), device=qkv.device)
    query, key, value = qkv.unbind(1)  # each [rows, heads, head_dim]
    keys, values = cache[:, : len(qkv)]
    keys[rows, :, positions] = key
    values[rows, :, positions] = value
    mask = torch.arange(context, device=qkv.device) <= positions[:, None]  # [rows, context]
    attended = scaled_dot_product_attention(
        query[:, :, None], keys[:, :, :context], values[:, :, :context], attn_mask=mask[:, None, None]
    )
    return attended.flatten(1)  # [rows, heads, 1, head_dim] -> [rows, heads × head_dim]


def decode_attention_on(device: torch.device) -> DecodeAttention:
    """The Triton kernel on CUDA where it works, else PyTorch's."""
    if device.type == "cuda":
        try:
            from worker.attention_kernel import triton_decode_attention

            # it is compiled at its first call, which takes a C compiler among other things
            qkv, cache = torch.zeros(1, 3, 1, 64, device=device), torch.zeros(2, 1, 1, 64, 64, device=device)
            triton_decode_attention(qkv, cache, torch.zeros(1, dtype=torch.long, device=device), 1)
        except Exception as error:
            log.warning("no Triton kernel here, on without it: %s", describe(error))
        else:
            return triton_decode_attention
    return sdpa_decode_attention
