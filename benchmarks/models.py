"""Random KOSMOS-2 models of any size, ready for the engine and for transformers' `generate` alike.

They say nothing, at as varied a length as a real one: rows end early, late, or at their limit. They are made on the
device in its dtype, with nothing from a hub, and the same seed gives the same weights under every transformers version.
"""

import copy
import math
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from transformers import GenerationConfig, Kosmos2Config, Kosmos2ForConditionalGeneration, Kosmos2Processor

from worker.generation import IMAGE_SIZE, Pixels
from worker.model import IMAGE_START, IMAGE_TOKENS, Kosmos

DEMO = Path(__file__).parents[1] / "worker/demo"
BRIEF = "<grounding>An image of"
BOS, PAD, EOS, UNKNOWN = range(4)


@dataclass(frozen=True, slots=True)
class Half:
    """The size of one half, text or vision. Its feed-forward layers are four times as wide."""

    layers: int
    width: int
    heads: int


@dataclass(frozen=True, slots=True)
class Shape:
    """The size of a model."""

    text: Half
    vision: Half
    vocabulary: int
    positions: int


REAL = Shape(Half(24, 2048, 32), Half(24, 1024, 16), vocabulary=65037, positions=2048)
"""microsoft/kosmos-2-patch14-224, as its config says."""
MIDDLE = Shape(Half(8, 512, 8), Half(8, 512, 8), vocabulary=1229, positions=512)
"""With the vocabulary, and so the tokenizer, of the demo model."""
TOY = Shape(Half(2, 64, 2), Half(2, 64, 2), vocabulary=65037, positions=512)
"""With the vocabulary of the real one."""

GAIN = 2.3
"""Of the text half's layers. With 1, a random model goes on repeating one token; with 5 it is so chaotic that bfloat16
agrees with float32 on a third of the tokens only."""
END_GAIN = 5.0
"""Of the end token's row: rows end from the first token to the limit."""


def build(
    shape: Shape, *, device: str = "cpu", dtype: torch.dtype = torch.float32, seed: int = 0, end_gain: float = END_GAIN
) -> Kosmos:
    """A model with random weights."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            model = Kosmos2ForConditionalGeneration(config_of(shape))
    finally:
        torch.set_default_dtype(before)
    with torch.no_grad():
        randomise(model, torch.Generator(device).manual_seed(seed))
        model.text_model.lm_head.weight[EOS] *= end_gain
    model.eval().requires_grad_(False)
    # as worker.model has it, for transformers before 5.23 and for `generate`
    model.image_to_text_projection.x_attn.is_causal = False
    model.text_model.generation_config = GenerationConfig(bos_token_id=BOS, eos_token_id=EOS, pad_token_id=PAD)
    processor = Kosmos2Processor.from_pretrained(DEMO) if shape.vocabulary == MIDDLE.vocabulary else stand_in()
    return Kosmos(model, processor)


def config_of(shape: Shape) -> Kosmos2Config:
    text = {
        "vocab_size": shape.vocabulary,
        "max_position_embeddings": shape.positions,
        "embed_dim": shape.text.width,
        "layers": shape.text.layers,
        "attention_heads": shape.text.heads,
        "ffn_dim": 4 * shape.text.width,
        "tie_word_embeddings": False,  # tied, the likeliest next token is the last one
    }
    vision = {
        "hidden_size": shape.vision.width,
        "num_hidden_layers": shape.vision.layers,
        "num_attention_heads": shape.vision.heads,
        "intermediate_size": 4 * shape.vision.width,
    }
    return Kosmos2Config(text_config=text, vision_config=vision, tie_word_embeddings=False)


def randomise(model: nn.Module, generator: torch.Generator) -> None:
    """Weights that let activations neither grow nor vanish, drawn in the order of their names; biases are 0."""
    for name, weights in sorted(model.named_parameters()):
        if weights.ndim > 1:
            weights.normal_(0, spread(name, weights), generator=generator)
        elif name.endswith("class_embedding"):
            weights.normal_(0, len(weights) ** -0.5, generator=generator)
        else:
            weights.fill_(name.endswith("weight"))


def spread(name: str, weights: Tensor) -> float:
    """The standard deviation of these weights."""
    if "latent_query" in name:
        return 1.0
    gain = GAIN if "text_model" in name and "layers" in name else 1.0
    return gain * math.sqrt(1 / weights[0].numel())


class FixedTokenizer:
    """Stands in for the real tokenizer where its files are not at hand: every prompt has the ids of the brief one."""

    bos_token = "<s>"
    unk_token_id = UNKNOWN
    tags = ("<phrase>", "</phrase>", "<object>", "</object>", "</delimiter_of_multi_objects/>", "<grounding>")
    first_tag = 64007

    def __call__(self, text: str, **options: Any) -> SimpleNamespace:
        image = range(UNKNOWN + 1, UNKNOWN + 1 + IMAGE_TOKENS)
        ids = [BOS, 64003, *image, 64004, 64012, 712, 1648, 9]
        assert ids[IMAGE_START] == image[0]
        return SimpleNamespace(input_ids=ids)

    def convert_tokens_to_ids(self, tokens: list[str]) -> list[int]:
        """Of the tags, and of the first location token, which comes after them."""
        known = [*self.tags, "<patch_index_0000>"]
        return [self.first_tag + known.index(token) for token in tokens]

    def decode(self, ids: list[int], **options: Any) -> str:
        return ""


def stand_in() -> SimpleNamespace:
    """What `Kosmos` needs of a processor."""
    images = SimpleNamespace(
        rescale_factor=1 / 255,
        image_mean=(0.48145466, 0.4578275, 0.40821073),
        image_std=(0.26862954, 0.26130258, 0.27577711),
    )
    return SimpleNamespace(tokenizer=FixedTokenizer(), image_processor=images)


def in_dtype(kosmos: Kosmos, dtype: torch.dtype) -> Kosmos:
    """The same weights in another dtype, as a model of its own."""
    other = copy.copy(kosmos)
    other.model = copy.deepcopy(kosmos.model).to(dtype)
    other.dtype = dtype
    return other


def blots(count: int, seed: int = 0) -> list[Pixels]:
    """Images of soft colours, which a random vision tower tells apart."""
    rng = np.random.default_rng(seed)
    size = (IMAGE_SIZE, IMAGE_SIZE)
    small = rng.integers(0, 256, (count, 4, 4, 3), dtype=np.uint8)
    return [np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC)) for image in small]


def drawings(count: int) -> list[Pixels]:
    """Scenes that the demo model knows to describe."""
    from benchmarks.pictures import scene

    size = (IMAGE_SIZE, IMAGE_SIZE)
    return [np.asarray(scene(number).resize(size, Image.Resampling.BICUBIC)) for number in range(count)]
