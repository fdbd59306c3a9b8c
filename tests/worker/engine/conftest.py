"""Two models for the engine, each beside transformers' own with the same weights, which says what is right."""

import copy
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from transformers import Kosmos2Config, Kosmos2ForConditionalGeneration, Kosmos2Processor

from worker.engine import Engine
from worker.generation import Generation, Request
from worker.model import Kosmos, load_model
from worker.revision import resolve

Pixels = NDArray[np.uint8]

BRIEF = "<grounding>An image of"
PROMPTS = (
    BRIEF,
    "<grounding><phrase>a red circle</phrase>",
    "",
    "two <pad> pads <pad>",
    "<grounding><phrase>It</phrase><object><patch_index_0044><patch_index_0863></object> is",
    "a red circle and a blue ring " * 40,
)
"""From 67 tokens to some hundreds; the fourth ends with a pad."""
TIMEOUT_S = 60


@cache
def drawing(seed: int) -> Pixels:
    """One to three coloured shapes. The same array for the same seed."""
    rng = np.random.default_rng(seed)
    image = Image.new("RGB", (224, 224), tuple(int(level) for level in rng.integers(60, 200, 3)))
    draw = ImageDraw.Draw(image)
    for place in range(1 + seed % 3):
        x, y, side = 8 + 72 * place, int(rng.integers(8, 150)), int(rng.integers(40, 64))
        shape = (draw.ellipse, draw.rectangle)[int(rng.integers(2))]
        shape((x, y, x + side, y + side), fill=("red", "blue", "yellow", "black")[int(rng.integers(4))])
    return np.asarray(image)


@cache
def blur(seed: int) -> Pixels:
    """Soft colours, which a random model tells apart better than shapes. The same array for the same seed."""
    colours = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(colours).resize((224, 224), Image.Resampling.BICUBIC))


class Answer(NamedTuple):
    token_ids: list[int]
    logprobs: list[float]


@dataclass
class Subject:
    """A model for the engine, and the plain loop with the same weights: one image at a time, by `generate`."""

    kosmos: Kosmos
    model: Any
    processor: Any
    picture: Callable[[int], Pixels]
    known: dict[Any, tuple[int, Pixels, Answer]] = field(default_factory=dict)

    def request(self, seed: int, prompt: str = BRIEF, max_new_tokens: int = 24, **options: Any) -> Request:
        return Request(self.picture(seed), prompt, max_new_tokens, **options)

    def pool(self, count: int, images: int, max_new_tokens: int = 24) -> list[Request]:
        """Requests of every kind, mixed; several for each image."""
        return [
            self.request(
                index % images,
                PROMPTS[index * 5 % 7 % 6],
                max_new_tokens,
                no_repeat_ngram_size=(0, 0, 1, 2, 3, 4, 5, 0)[index % 8],
                min_new_tokens=(0, 0, 0, 0, 7)[index % 5],
            )
            for index in range(count)
        ]

    def expected(self, request: Request) -> Answer:
        """What `generate` says of that image alone. Cut from a longer answer where one is known: greedy is greedy."""
        options = (request.prompt, request.no_repeat_ngram_size, request.min_new_tokens)
        key, limit = (id(request.pixels), *options), request.max_new_tokens
        if key not in self.known or self.known[key][0] < limit:
            asked = max(limit, 24)
            self.known[key] = asked, request.pixels, self._generate(request, asked)
        _, _, (tokens, logprobs) = self.known[key]
        return Answer(tokens[:limit], logprobs[:limit])

    def _generate(self, request: Request, max_new_tokens: int) -> Answer:
        inputs = self.processor(text=request.prompt, images=Image.fromarray(request.pixels), return_tensors="pt")
        with torch.inference_mode():
            found = self.model.generate(
                **inputs,
                do_sample=False,
                max_new_tokens=max_new_tokens,
                min_new_tokens=request.min_new_tokens,
                no_repeat_ngram_size=request.no_repeat_ngram_size,
                eos_token_id=self.kosmos.vocabulary.eos,
                pad_token_id=self.kosmos.vocabulary.pad,
                return_dict_in_generate=True,
                output_logits=True,
            )
        tokens = found.sequences[0, inputs["input_ids"].shape[1] :]
        logprobs = torch.cat(found.logits).log_softmax(-1).gather(1, tokens[:, None])[:, 0]
        return Answer(tokens.tolist(), logprobs.tolist())

    def run(self, requests: list[Request], slots: int = 4, **options: Any) -> list[Generation]:
        """What an engine says, in the order of the requests."""
        with Engine(self.kosmos, slots, **options) as engine:
            return done([engine.submit(request) for request in requests])

    def check(self, requests: list[Request], generations: list[Generation]) -> None:
        """The engine said what `generate` says, token by token, with the same probabilities."""
        for request, generation in zip(requests, generations, strict=True):
            tokens, logprobs = self.expected(request)
            assert generation.token_ids == tokens
            assert generation.logprobs == pytest.approx(logprobs, abs=1e-4)

    @contextmanager
    def at_entrance(self, act: Callable[[torch.Tensor], torch.Tensor | None]) -> Iterator[None]:
        """`act` sees, and may replace, every batch of images [n, 3, 224, 224] that enters the engine's model."""
        entrance = self.kosmos.model.vision_model.model.embeddings.patch_embedding
        hook = entrance.register_forward_pre_hook(lambda module, inputs: act(inputs[0]))
        try:
            yield
        finally:
            hook.remove()


def done(futures: list[Future[Generation]]) -> list[Generation]:
    return [future.result(TIMEOUT_S) for future in futures]


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """A thread of torch for models as small as these: more of them only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def processor() -> Any:
    return Kosmos2Processor.from_pretrained(resolve("demo").path)


@pytest.fixture(scope="session")
def demo(processor: Any) -> Subject:
    """The shipped model, which says sensible things of drawings."""
    kosmos = load_model(resolve("demo"), "cpu")
    model = Kosmos2ForConditionalGeneration.from_pretrained(resolve("demo").path)
    model.image_to_text_projection.x_attn.is_causal = False  # for transformers before 5.23
    return Subject(kosmos, model, processor, drawing)


@pytest.fixture(scope="session")
def rough(processor: Any) -> Subject:
    """A random model that depends on its image, ends anywhere from the first token on, and likes pads and objects."""
    config = Kosmos2Config.from_pretrained(resolve("demo").path)
    config.tie_word_embeddings = config.text_config.tie_word_embeddings = False
    config.text_config.layers = config.vision_config.num_hidden_layers = 2
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Kosmos2ForConditionalGeneration(config).eval().requires_grad_(False)
    for name, weight in model.named_parameters():
        if weight.dim() == 2 and ("proj" in name or "fc" in name):
            weight.mul_(5)
    model.vision_model.model.embeddings.patch_embedding.weight.mul_(5)
    model.image_to_text_projection.dense.weight.mul_(20)
    model.image_to_text_projection.x_attn.is_causal = False
    kosmos = Kosmos(model, processor)
    words = kosmos.vocabulary
    for token, gain in ((words.eos, 2), (words.pad, 2), (words.object, 2), (words.delimiter, 2)):
        model.text_model.lm_head.weight[token].mul_(gain)
    return Subject(kosmos, copy.deepcopy(model), processor, blur)


@pytest.fixture(params=["demo", "rough"])
def subject(request: pytest.FixtureRequest) -> Subject:
    return request.getfixturevalue(request.param)


@dataclass
class Gate:
    """Holds the model at its entrance until it is opened."""

    entered: threading.Event = field(default_factory=threading.Event)
    opened: threading.Event = field(default_factory=threading.Event)

    def __call__(self, images: torch.Tensor) -> None:
        self.entered.set()
        assert self.opened.wait(TIMEOUT_S)


@pytest.fixture
def gate() -> Gate:
    return Gate()
