"""Decode attention as a Triton kernel: each row reads exactly the keys it has, whatever its neighbours' lengths.

So no context needs to be known on the host, and a single CUDA graph serves every step.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

TILE = 64
"""Keys that a program reads at a time."""


@triton.jit  # type: ignore[untyped-decorator]
def _attend(
    qkv_ptr: "Any",  # in quotes: Triton evaluates what it finds, and knows none of these names
    cache_ptr: "Any",
    positions_ptr: "Any",
    out_ptr: "Any",
    scale: "Any",
    length: "Any",
    heads: tl.constexpr,
    head_dim: tl.constexpr,
    tile: tl.constexpr,
) -> None:
    """One row and head. Softmax is kept in its running form: greatest score, sum of weights, weighted sum of values."""
    row, head = tl.program_id(0), tl.program_id(1)
    slots = tl.num_programs(0)  # the launcher has seen to it that every slot has its row
    lane = tl.arange(0, head_dim)
    position = tl.load(positions_ptr + row).to(tl.int32)
    new_ptr = qkv_ptr + (row * 3 * heads + head) * head_dim + lane
    query = tl.load(new_ptr).to(tl.float32) * scale
    new_key = tl.load(new_ptr + heads * head_dim)
    new_value = tl.load(new_ptr + 2 * heads * head_dim)

    keys_ptr = cache_ptr + (row * heads + head).to(tl.int64) * length * head_dim
    values_ptr = keys_ptr + slots.to(tl.int64) * heads * length * head_dim
    tl.store(keys_ptr + position * head_dim + lane, new_key)
    tl.store(values_ptr + position * head_dim + lane, new_value)

    # the new token goes first, from registers: what was just stored must not be read back in the same program
    greatest = tl.sum(query * new_key.to(tl.float32), 0)
    total = greatest * 0.0 + 1.0
    out = new_value.to(tl.float32)
    for start in range(0, position, tile):
        place = start + tl.arange(0, tile)
        there = place < position
        at = place[:, None] * head_dim + lane[None, :]
        key = tl.load(keys_ptr + at, mask=there[:, None], other=0.0).to(tl.float32)
        value = tl.load(values_ptr + at, mask=there[:, None], other=0.0).to(tl.float32)
        score = tl.where(there, tl.sum(key * query[None, :], 1), float("-inf"))
        new_greatest = tl.maximum(greatest, tl.max(score, 0))
        kept = tl.exp(greatest - new_greatest)
        weight = tl.exp(score - new_greatest)
        total = total * kept + tl.sum(weight, 0)
        out = out * kept + tl.sum(weight[:, None] * value, 0)
        greatest = new_greatest
    out_at = out_ptr + (row * heads + head) * head_dim + lane
    tl.store(out_at, (out / total).to(out_ptr.dtype.element_ty))


def triton_decode_attention(qkv: Tensor, cache: Tensor, positions: Tensor, context: int) -> Tensor:
    """As `worker.attention.DecodeAttention` has it; `context` is not needed. Every slot must have its row."""
    rows, _, heads, head_dim = qkv.shape
    _, slots, _, length, _ = cache.shape
    assert rows == slots
    assert qkv.is_contiguous()
    assert cache.is_contiguous()
    out = torch.empty(rows, heads * head_dim, dtype=qkv.dtype, device=qkv.device)
    _attend[rows, heads](qkv, cache, positions, out, head_dim**-0.5, length, heads, head_dim, TILE, num_warps=2)
    return out
