"""The vision half of KOSMOS-2: images to the 64 embeddings each that the text half reads.

It computes what `Kosmos2VisionModel` and `Kosmos2ImageToTextProjection` compute, with that model's own weights.
"""

import torch
from torch import Tensor
from torch.nn.functional import linear, normalize, scaled_dot_product_attention

from worker.decoder import fuse, merge_heads
from worker.model import Kosmos


class Encoder:
    """Vision tower and resampler, with fused weights."""

    def __init__(self, kosmos: Kosmos) -> None:
        self._vision = kosmos.model.vision_model.model
        self._resample = kosmos.model.image_to_text_projection
        self._normalise = kosmos.normalise
        self._heads: int = self._vision.config.num_attention_heads
        self._qkv = [fuse(layer.self_attn) for layer in self._vision.encoder.layers]

    def encode(self, pixels: Tensor) -> Tensor:
        """[n, 64, text width] of uint8 [n, 224, 224, 3] on the device."""
        embed = self._vision.embeddings
        patches = embed.patch_embedding(self._normalise(pixels)).flatten(2).mT  # [n, 256, width]
        x = torch.cat([embed.class_embedding.expand(len(patches), 1, -1), patches], 1) + embed.position_embedding.weight
        x = self._vision.pre_layrnorm(x)  # [n, 257, width]
        for layer, (weight, bias) in zip(self._vision.encoder.layers, self._qkv, strict=True):
            qkv = linear(layer.layer_norm1(x), weight, bias).view(*x.shape[:2], 3, self._heads, -1)
            query, key, value = qkv.permute(2, 0, 3, 1, 4)  # each [n, heads, 257, head_dim]
            x = x + layer.self_attn.out_proj(merge_heads(scaled_dot_product_attention(query, key, value)))
            x = x + layer.mlp.fc2(quick_gelu(layer.mlp.fc1(layer.layer_norm2(x))))
        embeddings: Tensor = self._resample(normalize(self._vision.post_layernorm(x), dim=-1))[0]
        return embeddings


def quick_gelu(x: Tensor) -> Tensor:
    """x · sigmoid(1.702 x), with one new tensor in place of three."""
    return torch.sigmoid_(x * 1.702).mul_(x)
