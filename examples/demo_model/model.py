"""A Kosmos-2 of 1.6 million parameters, with weights that it learns quickly from."""

import math

import torch
from torch import Tensor, nn
from transformers import Kosmos2Config, Kosmos2ForConditionalGeneration

WIDTH = 128
LAYERS = 3
HEADS = 4
PATCH = 14
POSITIONS = 512


def build_config(vocabulary: int) -> Kosmos2Config:
    text = {
        "vocab_size": vocabulary,
        "embed_dim": WIDTH,
        "layers": LAYERS,
        "attention_heads": HEADS,
        "ffn_dim": 4 * WIDTH,
        "max_position_embeddings": POSITIONS,
        "init_std": WIDTH**-0.5,
        "dropout": 0.0,
        "attention_dropout": 0.0,
        "activation_dropout": 0.0,
    }
    vision = {
        "hidden_size": WIDTH,
        "intermediate_size": 4 * WIDTH,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "patch_size": PATCH,
        "image_size": 224,
    }
    return Kosmos2Config(text_config=text, vision_config=vision, tie_word_embeddings=True, dtype="float32")


def build_model(vocabulary: int, first_location: int, seed: int) -> Kosmos2ForConditionalGeneration:
    """An untrained model. Its location tokens and its patches begin with what is known of pictures and grids."""
    torch.manual_seed(seed)
    model = Kosmos2ForConditionalGeneration(build_config(vocabulary))
    with torch.no_grad():
        locations = model.text_model.model.embed_tokens.weight[first_location : first_location + 1024]
        locations.copy_(grid_waves() * WIDTH**-0.5)
        model.vision_model.model.embeddings.patch_embedding.weight.copy_(cosine_patches())
        # Its input is normalised to length 1, which is small for each of its 128 numbers.
        nn.init.normal_(model.image_to_text_projection.dense.weight, std=1.0)
    return model


def grid_waves(side: int = 32) -> Tensor:
    """[side², WIDTH]: sines and cosines of the row and the column, so that near cells are alike."""
    frequencies = 2 * math.pi / 4 ** torch.linspace(0.25, 3, WIDTH // 4)
    row, column = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    angles = torch.cat([place.reshape(-1, 1) * frequencies for place in (row, column)], dim=1)
    return torch.cat([angles.sin(), angles.cos()], dim=1) * 2**0.5


def cosine_patches() -> Tensor:
    """[WIDTH, 3, PATCH, PATCH]: the lowest frequencies of the cosine transform of each channel."""
    places = (torch.arange(PATCH) + 0.5) * math.pi / PATCH
    waves = torch.stack([(k * places).cos() for k in range(PATCH)])
    order = sorted(((u, v) for u in range(PATCH) for v in range(PATCH)), key=lambda uv: uv[0] + uv[1])
    filters = torch.zeros(WIDTH, 3, PATCH, PATCH)
    for index in range(WIDTH):
        u, v = order[index // 3]
        filters[index, index % 3] = torch.outer(waves[u], waves[v])
    return filters / filters.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
