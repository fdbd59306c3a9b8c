"""The choice of the next token: greedy, under the decoding options of each row."""

from collections.abc import Iterable
from typing import NamedTuple, Self

import torch
from torch import Tensor

from schemas.grounding import CELLS, GRID
from worker.generation import Request, Vocabulary

AROUND = 2
"""Cells around the chosen one that tell where in it, or beside it, a corner lies: what is farther off is another place.

On drawings this gave the best boxes (benchmarks/RESULTS.md).
"""
OBJECT_TOKENS = 4
"""What the shortest object takes: its tags and two location tokens."""


class Rules(NamedTuple):
    """The options that any of the rows uses; the others cost nothing. One CUDA graph for each of these."""

    no_repeat_ngram_sizes: tuple[int, ...] = ()
    min_new_tokens: bool = False
    constrained: bool = False

    @classmethod
    def of(cls, requests: Iterable[Request]) -> Self:
        """Those of these requests."""
        wanted = list(requests)
        return cls(
            tuple(sorted({request.no_repeat_ngram_size for request in wanted} - {0})),
            any(request.min_new_tokens for request in wanted),
            any(request.constrained for request in wanted),
        )


class Choice(NamedTuple):
    """The next token of each row, and what the model's distribution says beside it."""

    tokens: Tensor
    """[n]"""
    logprobs: Tensor
    """[n], of these tokens."""
    glances: Tensor
    """[n, 5]: see `worker.generation.Glance`."""


class Rows(NamedTuple):
    """What the choice depends on, for n rows. A place is an index into `ids`."""

    ids: Tensor
    """[n, length]: prompt and generated tokens."""
    next: Tensor
    """[n]: the place of the token to be chosen."""
    end: Tensor
    """[n]: the first place that is past the row's limit."""
    min_end: Tensor
    """[n]: the first place where the row may end."""
    no_repeat_ngram_size: Tensor
    """[n]: 0 for none."""
    constrained: Tensor
    """[n], bool."""


def choose(logits: Tensor, rows: Rows, rules: Rules, vocabulary: Vocabulary) -> Choice:
    """The choice from logits [n, vocabulary] in float32.

    Probabilities are the model's own, before any option forbids anything. What an option forbids, it forbids as
    `generate` does, in any order; inside an object of a constrained row only the constraint holds.
    """
    scores = logits
    for size in rules.no_repeat_ngram_sizes:
        scores = forbid_repeats(scores, rows, size)
    if rules.min_new_tokens:
        scores = scores.clone()
        scores[:, vocabulary.eos].masked_fill_(rows.next < rows.min_end, -torch.inf)
    if rules.constrained:
        scores = keep_well_formed(logits, scores, rows, vocabulary)
    tokens = scores.argmax(-1)
    total = logits.logsumexp(-1)
    logprobs = logits.gather(1, tokens[:, None])[:, 0] - total
    return Choice(tokens, logprobs, glance(logits, tokens, logits[:, vocabulary.object] - total, vocabulary))


def glance(logits: Tensor, tokens: Tensor, log_object: Tensor, vocabulary: Vocabulary) -> Tensor:
    """[n, 5]: where the model would put a corner, and how surely; whether it would begin an object, `log_object` [n].

    Among the 1,024 location tokens alone, whose share of all probability is next to everything where one is due.
    """
    cells = logits[:, vocabulary.first_patch : vocabulary.first_patch + CELLS].softmax(-1).view(-1, GRID, GRID)
    sides = torch.stack([cells.sum(1), cells.sum(2)], 1)  # [n, 2, GRID]: of the columns, of the rows
    line = torch.arange(GRID, device=tokens.device)
    chosen = tokens - vocabulary.first_patch
    near_row, near_column = (
        (line - at[:, None]).abs() <= AROUND for at in (chosen.div(GRID, rounding_mode="floor"), chosen % GRID)
    )
    around = cells * (near_row[:, :, None] & near_column[:, None])
    means = torch.stack([around.sum(1), around.sum(2)], 1) @ line.to(cells.dtype)
    means = means / around.sum((1, 2))[:, None]
    return torch.cat([means, -torch.xlogy(sides, sides).sum(-1), log_object[:, None]], 1)


def forbid_repeats(scores: Tensor, rows: Rows, size: int) -> Tensor:
    """Scores without the tokens that would complete an n-gram of that size a second time, in rows of that size.

    As NoRepeatNGramLogitsProcessor of transformers does, prompt included.
    """
    count = rows.ids.shape[1] - size + 1
    if count < 1:
        return scores
    match = (rows.no_repeat_ngram_size == size)[:, None] & (
        torch.arange(count, device=scores.device) + size <= rows.next[:, None]
    )  # [n, count]: which of the row's n-grams begin as the one to be completed
    for offset in range(size - 1):
        place = (rows.next - size + 1 + offset).clamp(min=0)
        match &= rows.ids[:, offset : offset + count] == rows.ids.gather(1, place[:, None])
    completing = rows.ids[:, size - 1 :]  # [n, count]
    bound = torch.full_like(completing, torch.inf, dtype=scores.dtype).masked_fill_(match, -torch.inf)
    return scores.scatter_reduce(1, completing, bound, "amin")


def keep_well_formed(logits: Tensor, scores: Tensor, rows: Rows, vocabulary: Vocabulary) -> Tensor:
    """Scores of constrained rows with only those tokens that leave their boxes well formed.

    `<object>`, then a pair of location tokens, then `</object>` or, after a delimiter, the next pair. Where a row
    stands is told by its last three tokens.
    """
    last, before, third = (
        rows.ids.gather(1, (rows.next - back).clamp(min=0)[:, None])[:, 0]  # a slot that was never used has no three
        for back in (1, 2, 3)
    )
    cell = last - vocabulary.first_patch
    first = opens(last, vocabulary)
    second = is_cell(cell) & opens(before, vocabulary)
    whole = is_cell(cell) & is_cell(before - vocabulary.first_patch) & opens(third, vocabulary)
    inside = first | second | whole
    roomy = rows.end - rows.next >= OBJECT_TOKENS

    cells = torch.arange(CELLS, device=scores.device)
    down = cells // GRID >= (cell // GRID)[:, None]
    right = cells % GRID >= (cell % GRID)[:, None]
    forbidden = inside[:, None].expand_as(scores).clone()
    patches = slice(vocabulary.first_patch, vocabulary.first_patch + CELLS)
    forbidden[:, patches] = ~(first[:, None] | second[:, None] & down & right)
    forbidden[:, vocabulary.object] = inside | ~roomy
    forbidden[:, vocabulary.end_object] = ~whole
    forbidden[:, vocabulary.delimiter] = ~(whole & roomy)
    scores = torch.where((inside & rows.constrained)[:, None], logits, scores)
    return scores.masked_fill(forbidden & rows.constrained[:, None], -torch.inf)


def opens(tokens: Tensor, vocabulary: Vocabulary) -> Tensor:
    """Whether a pair of location tokens comes after it."""
    return (tokens == vocabulary.object) | (tokens == vocabulary.delimiter)


def is_cell(cells: Tensor) -> Tensor:
    return (cells >= 0) & (cells < CELLS)
