"""Run by test_attention.py, with TRITON_INTERPRET=1: both ways of attention against the definition in float64."""

from importlib.util import find_spec
from typing import Any

import pytest
import torch
from torch import Tensor

from worker.attention import sdpa_decode_attention
from worker.decoding import Rules
from worker.runner import Runner
from worker.scheduler import Row, Scheduler

HEADS, LENGTH = 2, 192
POSITIONS = [0, 1, 63, 64, 65, 127, 128, 191]
TOLERANCE = {torch.float32: 2e-6, torch.bfloat16: 2e-2}


@pytest.fixture(params=["sdpa", "triton"])
def attention(request: pytest.FixtureRequest) -> Any:
    if request.param == "sdpa":
        return sdpa_decode_attention
    if not find_spec("triton"):
        pytest.skip("Triton is not installed")
    from worker.attention_kernel import triton_decode_attention

    return triton_decode_attention


def case(dtype: torch.dtype, head_dim: int = 32) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    rows = len(POSITIONS)
    qkv = torch.randn(rows, 3, HEADS, head_dim) * 2
    cache = torch.randn(2, rows, HEADS, LENGTH, head_dim) * 2
    return qkv.to(dtype), cache.to(dtype), torch.tensor(POSITIONS)


def defined(qkv: Tensor, cache: Tensor, positions: Tensor) -> Tensor:
    """[rows, heads × head_dim] by the definition, one row and head at a time."""
    out = torch.empty(len(qkv), HEADS, qkv.shape[-1], dtype=torch.float64)
    for row, position in enumerate(positions.tolist()):
        for head in range(HEADS):
            query, new_key, new_value = qkv[row, :, head].double()
            keys = torch.cat([cache[0, row, head, :position].double(), new_key[None]])
            values = torch.cat([cache[1, row, head, :position].double(), new_value[None]])
            out[row, head] = (keys @ query / query.numel() ** 0.5).softmax(0) @ values
    return out.flatten(1)


@pytest.mark.parametrize(
    ("dtype", "head_dim"), [(torch.float32, 32), (torch.float32, 64), (torch.bfloat16, 64)], ids=str
)
def test_each_row_attends_to_all_up_to_its_position(attention: Any, dtype: torch.dtype, head_dim: int) -> None:
    """On both sides of the borders of tiles, and from the first place to the last."""
    qkv, cache, positions = case(dtype, head_dim)
    expected = defined(qkv, cache, positions)
    found = attention(qkv, cache, positions, LENGTH)
    assert found.dtype is dtype
    torch.testing.assert_close(found.double(), expected, atol=TOLERANCE[dtype], rtol=TOLERANCE[dtype])


def test_append_is_written_to_its_place_and_nothing_else_changes(attention: Any) -> None:
    qkv, cache, positions = case(torch.bfloat16)
    expected = cache.clone()
    for row, position in enumerate(POSITIONS):
        expected[:, row, :, position] = qkv[row, 1:]
    attention(qkv, cache, positions, LENGTH)
    assert cache.equal(expected)


def test_large_scores_do_not_overflow(attention: Any) -> None:
    qkv, cache, positions = case(torch.float32)
    expected = defined(qkv * 60, cache * 5, positions)
    torch.testing.assert_close(
        attention(qkv * 60, cache * 5, positions, LENGTH).double(), expected, atol=1e-2, rtol=1e-3
    )


@pytest.mark.parametrize("poison", [1e30, torch.nan])
def test_what_lies_behind_the_position_is_not_seen(attention: Any, poison: float) -> None:
    """NaN only by the kernel: PyTorch's way masks what it reads, so the runner sees to it that there is none."""
    if attention is sdpa_decode_attention and poison != poison:
        poison = 3e4
    qkv, cache, positions = case(torch.float32)
    clean = attention(qkv, cache.clone(), positions, LENGTH)
    for row, position in enumerate(POSITIONS):
        cache[:, row, :, position:] = poison
    assert attention(qkv, cache, positions, LENGTH).equal(clean)


def test_pytorch_reads_no_further_than_the_context() -> None:
    """Fewer rows than slots, and a row that is done may lie beyond the context."""
    qkv, cache, positions = case(torch.float32)
    count = POSITIONS.index(65)
    expected = defined(qkv[:count], cache, positions[:count])
    cache[:, :, :, 96:] = torch.nan
    found = sdpa_decode_attention(qkv[:count], cache, positions[:count], 96)
    torch.testing.assert_close(found.double(), expected, atol=2e-6, rtol=2e-6)
    sdpa_decode_attention(qkv, cache, positions, 96)
    assert cache[0, POSITIONS.index(191), :, 191].equal(qkv[POSITIONS.index(191), 1])


def test_kernel_refuses_fewer_rows_than_slots() -> None:
    """It would take the values of one row for those of another."""
    pytest.importorskip("triton", reason="Triton is not installed")
    from worker.attention_kernel import triton_decode_attention

    qkv, cache, positions = case(torch.float32)
    with pytest.raises(AssertionError):
        triton_decode_attention(qkv[:3].contiguous(), cache, positions[:3], LENGTH)


def test_runner_with_the_kernel_says_what_transformers_says(rough: Any, attention: Any) -> None:
    rows = [Row(rough.request(seed % 2, prompt, 4), rough.kosmos.prompt_ids(prompt)) for seed, prompt in
            enumerate(("", "<grounding>An image of", "<pad>a", "a red ring " * 18))]  # fmt: skip

    def on_all_slots(qkv: Tensor, cache: Tensor, positions: Tensor, context: int) -> Tensor:
        """On a CPU the runner leaves out the slots behind the last row; the kernel wants them all."""
        part = cache[:, : len(qkv)].contiguous()
        found = attention(qkv.contiguous(), part, positions, context)
        cache[:, : len(qkv)] = part
        return found

    runner = Runner(rough.kosmos, sync_every=3, attention=on_all_slots)
    runner.allocate(4, 192)
    scheduler = Scheduler(4, 192)
    for row in rows:
        scheduler.add(row)
    plan = scheduler.schedule()
    runner.prefill(plan)
    runner.decode(Rules())
    ended = runner.collect()
    assert [ended[slot].token_ids for _, slot in plan.rows] == [rough.expected(row.request).token_ids for row in rows]
