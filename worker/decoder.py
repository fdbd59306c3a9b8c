"""The text half of KOSMOS-2 over a static KV cache: prefill into slots, then one token of every slot at a time.

It computes what `Kosmos2TextForCausalLM` computes, with that model's own weights. No scheduling, no choice of tokens.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear, scaled_dot_product_attention

from worker.attention import DecodeAttention, decode_attention_on
from worker.model import IMAGE_START, IMAGE_TOKENS, Kosmos

PREFIX = IMAGE_START + IMAGE_TOKENS
"""Tokens before the prompt's own, the same under every prompt: `<s>`, `<image>` and the image's 64."""

Attend = Callable[[int, Tensor], Tensor]
"""(layer, qkv [n, tokens, 3, heads, head_dim]) → [n, tokens, width]"""


class Decoder:
    """Fused weights and the KV cache, `[layers, 2, slots, heads, length, head_dim]`."""

    cache: Tensor

    def __init__(self, kosmos: Kosmos, attention: DecodeAttention | None = None) -> None:
        text = kosmos.model.text_model.model
        self.heads: int = text.config.attention_heads
        self.head_dim: int = text.config.embed_dim // self.heads
        self.pad = kosmos.vocabulary.pad
        self.dtype, self.device = kosmos.dtype, kosmos.device
        self.attention = attention or decode_attention_on(kosmos.device)
        self._text = text
        self._head: Tensor = kosmos.model.text_model.lm_head.weight  # [vocabulary, width]
        self._first_ids = torch.tensor(kosmos.prompt_ids("")[:IMAGE_START], device=kosmos.device)
        self._qkv = [fuse(layer.self_attn) for layer in text.layers]

    def slot_bytes(self, length: int) -> int:
        """What a slot of so many tokens takes in the cache."""
        return len(self._qkv) * 2 * self.heads * length * self.head_dim * self.dtype.itemsize

    def free(self) -> None:
        """Gives the cache's memory back: there is seldom room for another beside it."""
        self.cache = torch.empty(0)

    def allocate(self, slots: int, length: int) -> None:
        """A new cache, all zeros: whatever is masked must at least be numbers."""
        shape = (len(self._qkv), 2, slots, self.heads, length, self.head_dim)
        self.cache = torch.zeros(shape, dtype=self.dtype, device=self.device)

    def prefill_images(self, images: Tensor) -> list[Tensor]:
        """Keys and values of `images` [n, 64, width], for each layer [2, n, heads, PREFIX, head_dim].

        It writes nothing: compiled, it would copy the whole cache to write to a part of it.
        """
        first = self._text.embed_tokens(self._first_ids).expand(len(images), -1, -1)
        x = self._embed(torch.cat([first, images], 1), torch.arange(PREFIX, device=images.device) + self.pad + 1)

        found: list[Tensor] = []

        def attend(layer: int, qkv: Tensor) -> Tensor:
            query, key, value = qkv.permute(2, 0, 3, 1, 4)  # each [n, heads, PREFIX, head_dim]
            found.append(torch.stack([key, value]))
            return merge_heads(scaled_dot_product_attention(query, key, value, is_causal=True))

        last = len(self._qkv) - 1
        for layer in range(last):
            x = self._block(layer, x, attend)
        # of the last layer only keys and values are ever read
        found.append(self._project(last, x)[:, :, 1:].permute(2, 0, 3, 1, 4))
        return found

    def store_images(self, found: list[Tensor], slots: Tensor) -> None:
        """Writes the keys and values of images to the cache's places [0, PREFIX) of `slots` [n]."""
        for layer, keys_and_values in zip(self.cache, found, strict=True):
            layer[:, slots, :, :PREFIX] = keys_and_values

    def copy_images(self, sources: Tensor, targets: Tensor) -> None:
        """Copies the cache's places [0, PREFIX) of the slots `sources` [n] to `targets` [n]."""
        for layer in self.cache:  # one at a time: the copy in between is large
            layer[:, targets, :, :PREFIX] = layer[:, sources, :, :PREFIX]

    def prefill_prompts(self, ids: Tensor, positions: Tensor, slots: Tensor, rows: Tensor, places: Tensor) -> Tensor:
        """Logits [m, vocabulary] behind the tokens at `places` [m] of `rows` [m], whose images are in their slots.

        `ids` and `positions` (rows of the position table) are [n, tokens], padded on the right: what stands there is
        seen by no token before it, and overwritten before any token after it looks. `slots` [n].
        """
        count, end = ids.shape[1], PREFIX + ids.shape[1]
        mask = torch.ones(count, end, dtype=torch.bool, device=ids.device).tril(PREFIX)

        def attend(layer: int, qkv: Tensor) -> Tensor:
            query, key, value = qkv.permute(2, 0, 3, 1, 4)  # each [n, heads, tokens, head_dim]
            keys, values = self.cache[layer]
            keys[slots, :, PREFIX:end] = key
            values[slots, :, PREFIX:end] = value
            attended = scaled_dot_product_attention(query, keys[slots, :, :end], values[slots, :, :end], attn_mask=mask)
            return merge_heads(attended)

        x = self._embed(self._text.embed_tokens(ids), positions)
        for layer in range(len(self._qkv)):
            x = self._block(layer, x, attend)
        return self._logits(x[rows, places])

    def step(self, tokens: Tensor, positions: Tensor, context: int) -> Tensor:
        """Logits [rows, vocabulary] behind `tokens` [rows], which stand at `positions` [rows] of slots 0, 1, ...

        `context` bounds the positions of those that are not done: all of these are below it.
        """
        # transformers gives a generated pad the zero row of its table, and does not shift those after it
        places = torch.where(tokens == self.pad, self.pad, positions + self.pad + 1)
        x = self._embed(self._text.embed_tokens(tokens), places)[:, None]  # [rows, 1, width]

        def attend(layer: int, qkv: Tensor) -> Tensor:
            return self.attention(qkv[:, 0], self.cache[layer], positions, context)[:, None]

        for layer in range(len(self._qkv)):
            x = self._block(layer, x, attend)
        return self._logits(x[:, 0])

    def _embed(self, embeddings: Tensor, positions: Tensor) -> Tensor:
        table: Tensor = self._text.embed_positions.weights
        scaled: Tensor = embeddings * self._text.embed_scale
        return scaled + table[positions]

    def _project(self, layer: int, x: Tensor) -> Tensor:
        """Query, key and value: [n, tokens, 3, heads, head_dim]."""
        normed = self._text.layers[layer].self_attn_layer_norm(x)
        return linear(normed, *self._qkv[layer]).view(*x.shape[:2], 3, self.heads, self.head_dim)

    def _block(self, layer: int, x: Tensor, attend: Attend) -> Tensor:
        """One layer, x [n, tokens, width]."""
        weights = self._text.layers[layer]
        attended = attend(layer, self._project(layer, x))
        x = x + weights.self_attn.out_proj(weights.self_attn.inner_attn_ln(attended))
        hidden: Tensor = x + weights.ffn(weights.final_layer_norm(x))
        return hidden

    def _logits(self, x: Tensor) -> Tensor:
        return linear(self._text.layer_norm(x), self._head)


def fuse(attention: Any) -> tuple[Tensor, Tensor]:
    """Weight [3 × width, width] and bias [3 × width] of query, key and value in one, with no memory of their own.

    The three projections become views of it, so that transformers' own `forward` goes on to work.
    """
    projections = (attention.q_proj, attention.k_proj, attention.v_proj)
    weight = torch.cat([projection.weight for projection in projections])
    bias = torch.cat([projection.bias for projection in projections])
    for projection, its_weight, its_bias in zip(projections, weight.chunk(3), bias.chunk(3), strict=True):
        projection.weight.data, projection.bias.data = its_weight, its_bias
    return weight, bias


def merge_heads(attended: Tensor) -> Tensor:
    """[n, heads, tokens, head_dim] as [n, tokens, width]."""
    return attended.transpose(1, 2).flatten(2)
