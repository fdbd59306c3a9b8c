"""The engine says what transformers says of each image alone, whoever asks, and nobody waits in vain."""

import copy
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from transformers import Kosmos2ForConditionalGeneration, Kosmos2Processor

from schemas.errors import Code, PermanentFailure
from worker.engine import Engine, EngineBroken, EngineClosed, Generation, Request
from worker.model import Kosmos, load_model
from worker.null_engine import NullEngine
from worker.revision import resolve

Pixels = NDArray[np.uint8]

BRIEF = "<grounding>An image of"
PHRASE = "<grounding><phrase>a red circle</phrase>"
PROMPTS = (BRIEF, PHRASE, "<grounding>Describe this image in detail:", "An image of")
POISON = np.zeros((224, 224, 3), np.uint8)
TIMEOUT_S = 60


def scene(seed: int) -> Pixels:
    """A drawing of one to three coloured shapes."""
    rng = np.random.default_rng(seed)
    image = Image.new("RGB", (224, 224), tuple(int(level) for level in rng.integers(60, 200, 3)))
    draw = ImageDraw.Draw(image)
    for place in range(1 + seed % 3):
        x, y, side = 8 + 72 * place, int(rng.integers(8, 150)), int(rng.integers(40, 64))
        shape = (draw.ellipse, draw.rectangle)[int(rng.integers(2))]
        shape((x, y, x + side, y + side), fill=("red", "blue", "yellow", "black")[int(rng.integers(4))])
    return np.asarray(image)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """A thread of torch for a model as small as this: more of them only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def kosmos() -> Kosmos:
    return load_model(resolve("demo"), "cpu")


@dataclass
class Plain:
    """The plain loop: transformers' own processor and model, one image at a time."""

    processor: Any = field(default_factory=lambda: Kosmos2Processor.from_pretrained(resolve("demo").path))
    model: Any = field(default_factory=lambda: Kosmos2ForConditionalGeneration.from_pretrained(resolve("demo").path))

    def __post_init__(self) -> None:
        self.model.image_to_text_projection.x_attn.is_causal = False  # for transformers before 5.23

    def __call__(self, request: Request) -> list[int]:
        """The tokens that it generates."""
        inputs = self.processor(text=request.prompt, images=Image.fromarray(request.pixels), return_tensors="pt")
        ids = self.model.generate(
            **inputs,
            do_sample=False,
            max_new_tokens=request.max_new_tokens,
            no_repeat_ngram_size=request.no_repeat_ngram_size,
        )
        return list(ids[0, inputs["input_ids"].shape[1] :].tolist())


@pytest.fixture(scope="module")
def plain() -> Plain:
    return Plain()


def done(futures: list[Future[Generation]]) -> list[Generation]:
    return [future.result(TIMEOUT_S) for future in futures]


@contextmanager
def at_every_image_batch(kosmos: Kosmos, act: Callable[[torch.Tensor], torch.Tensor | None]) -> Iterator[None]:
    """`act` sees, and may replace, every batch of images [n, 3, 224, 224] that enters the model."""
    entrance = kosmos.model.vision_model.model.embeddings.patch_embedding
    hook = entrance.register_forward_pre_hook(lambda module, inputs: act(inputs[0]))
    try:
        yield
    finally:
        hook.remove()


def is_poison(images: torch.Tensor) -> torch.Tensor:
    """Which of the images are black all over: [n]."""
    return images.amax((1, 2, 3)) < -1.4


@dataclass
class Gate:
    """Holds the model at the entrance until it is opened."""

    entered: threading.Event = field(default_factory=threading.Event)
    opened: threading.Event = field(default_factory=threading.Event)

    def __call__(self, images: torch.Tensor) -> None:
        self.entered.set()
        assert self.opened.wait(TIMEOUT_S)


# ---- what it says


def test_tokens_are_those_of_transformers_on_each_image_alone(kosmos: Kosmos, plain: Plain) -> None:
    requests = [Request(scene(seed), PROMPTS[seed % 4], 48, (0, 0, 3)[seed % 3]) for seed in range(24)]
    expected = [plain(request) for request in requests]
    for batch_size in (1, 5, 16):
        with Engine(kosmos, batch_size) as engine:
            generations = done([engine.submit(request) for request in requests])
        assert [generation.token_ids for generation in generations] == expected


def test_requests_of_many_threads_get_their_own_answers(kosmos: Kosmos, plain: Plain) -> None:
    """Prompt lengths, limits and n-gram sizes interleaved: rows of one batch must share them."""
    requests = [Request(scene(seed), PROMPTS[seed % 4], 12 + seed % 2, 3 * (seed % 2)) for seed in range(24)]
    with Engine(kosmos, 8) as engine, ThreadPoolExecutor(8) as threads:
        generations = list(threads.map(lambda request: engine.submit(request).result(TIMEOUT_S), requests))
    assert [generation.token_ids for generation in generations] == [plain(request) for request in requests]


def test_raw_text_is_prompt_and_answer_with_their_tags(kosmos: Kosmos, plain: Plain) -> None:
    request = Request(scene(0), BRIEF, 48)
    with Engine(kosmos, 4) as engine:
        [generation] = done([engine.submit(request)])
    whole = [*kosmos.prompt_ids(BRIEF), *generation.token_ids]
    [text] = plain.processor.batch_decode([whole], skip_special_tokens=True)
    assert generation.raw_text == text.split("</image>")[-1]
    assert generation.raw_text.startswith("<grounding> An image of<phrase>")
    assert generation.finish_reason == "stop"
    assert generation.token_ids[-1] == kosmos.eos_id


def test_logprobs_are_those_of_teacher_forcing_before_any_token_is_forbidden(kosmos: Kosmos) -> None:
    requests = [Request(scene(seed), BRIEF, 40, 2 * (seed % 2)) for seed in range(8)]
    with Engine(kosmos, 8) as engine:
        generations = done([engine.submit(request) for request in requests])
    for request, generation in zip(requests, generations, strict=True):
        assert len(generation.logprobs) == len(generation.token_ids)
        prompt_ids = kosmos.prompt_ids(BRIEF)
        ids = torch.tensor([[*prompt_ids, *generation.token_ids]])
        places = torch.zeros_like(ids)
        places[:, 2:66] = 1
        with torch.inference_mode():
            pixels = kosmos.normalise(np.stack([request.pixels]))
            logits = kosmos.model(pixel_values=pixels, input_ids=ids, image_embeds_position_mask=places).logits
        expected = logits[0, len(prompt_ids) - 1 : -1].log_softmax(-1).gather(1, ids[0, len(prompt_ids) :, None])
        assert generation.logprobs == pytest.approx(expected[:, 0].tolist(), abs=1e-4)


def test_limit_on_length_is_told_and_an_end_on_the_last_token_is_an_end(kosmos: Kosmos) -> None:
    pixels = scene(1)
    with Engine(kosmos, 4) as engine:
        whole = engine.submit(Request(pixels, BRIEF, 48)).result(TIMEOUT_S)
        count = len(whole.token_ids)
        exact, short, one = done([engine.submit(Request(pixels, BRIEF, limit)) for limit in (count, count - 1, 1)])
    assert (exact.finish_reason, exact.token_ids) == ("stop", whole.token_ids)
    assert (short.finish_reason, short.token_ids) == ("length", whole.token_ids[:-1])
    assert (one.finish_reason, one.token_ids) == ("length", whole.token_ids[:1])
    assert len(one.logprobs) == 1


def test_row_that_ends_on_its_first_token_leaves_its_neighbours_alone(kosmos: Kosmos) -> None:
    """The first token of one of the images is made the end token of all."""
    requests = [Request(scene(seed), "An image of", 24) for seed in range(6)]
    with Engine(kosmos, 6) as engine:
        before = done([engine.submit(request) for request in requests])
    ending = copy.copy(kosmos)
    ending.eos_id = before[0].token_ids[0]
    with Engine(ending, 6) as engine:
        after = done([engine.submit(request) for request in requests])
    for first, second in zip(before, after, strict=True):
        cut = first.token_ids.index(ending.eos_id) + 1 if ending.eos_id in first.token_ids else 24
        assert second.token_ids[: len(first.token_ids)] == first.token_ids[:cut]
    assert after[0].token_ids == [ending.eos_id]


def test_engine_runs_in_bfloat16() -> None:
    with Engine(load_model(resolve("demo", dtype="bfloat16"), "cpu"), 2) as engine:
        generations = done([engine.submit(Request(scene(seed), BRIEF, 24)) for seed in range(2)])
    assert all("<object><patch_index_" in generation.raw_text for generation in generations)


# ---- how it batches


def test_batch_holds_the_oldest_and_those_of_its_kind_up_to_the_size(
    kosmos: Kosmos, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes, generate, gate = [], kosmos.model.generate, Gate()

    def spy(**inputs: Any) -> Any:
        shapes.append(tuple(inputs["input_ids"].shape))
        return generate(**inputs)

    monkeypatch.setattr(kosmos.model, "generate", spy)
    with at_every_image_batch(kosmos, gate), Engine(kosmos, 4) as engine:
        futures = [engine.submit(Request(scene(0), "", 1))]
        assert gate.entered.wait(TIMEOUT_S)
        prompts = [BRIEF, "<grounding>"] * 3 + [BRIEF] * 3
        futures += [engine.submit(Request(scene(seed), prompt, 2)) for seed, prompt in enumerate(prompts)]
        assert engine.figures.waiting == 9
        gate.opened.set()
        generations = done(futures)
        figures = engine.figures
    assert shapes == [(1, 67), (4, 71), (3, 68), (2, 71)]
    assert (figures.images, figures.batches, figures.waiting, figures.batch_size) == (10, 4, 0, 4)
    assert figures.tokens == sum(len(generation.token_ids) for generation in generations)
    assert figures.busy_s > 0


def test_cancelled_request_is_not_computed(kosmos: Kosmos) -> None:
    gate = Gate()
    with at_every_image_batch(kosmos, gate), Engine(kosmos, 4) as engine:
        first = engine.submit(Request(scene(0), BRIEF, 2))
        assert gate.entered.wait(TIMEOUT_S)
        second, third = (engine.submit(Request(scene(seed), BRIEF, 2)) for seed in (1, 2))
        assert second.cancel()
        gate.opened.set()
        done([first, third])
        assert engine.figures.images == 2
    with pytest.raises(CancelledError):
        second.result()


# ---- what fails


@pytest.mark.parametrize(
    "pixels",
    [
        np.full((224, 224, 3), np.nan),
        np.zeros((224, 224), np.uint8),
        np.zeros((0, 224, 3), np.uint8),
        np.zeros((3, 224, 224), np.uint8),
        None,
    ],
)
def test_pixels_of_another_kind_fail_alone(kosmos: Kosmos, pixels: Any) -> None:
    with Engine(kosmos, 4) as engine:
        futures = [engine.submit(Request(image, BRIEF, 2)) for image in (scene(0), pixels, scene(1))]
        with pytest.raises(PermanentFailure, match="not uint8") as failure:
            futures[1].result(TIMEOUT_S)
        assert failure.value.code is Code.INTERNAL
        assert len(done([futures[0], futures[2]])) == 2


@pytest.mark.parametrize(
    ("prompt", "max_new_tokens", "words"),
    [(BRIEF, 442, "71 tokens of prompt and 442 new ones"), ("a b " * 300, 1, "512 positions"), ("\ud800", 1, "read")],
)
def test_prompt_that_the_model_cannot_take_fails_alone(
    kosmos: Kosmos, prompt: str, max_new_tokens: int, words: str
) -> None:
    with Engine(kosmos, 4) as engine:
        future, neighbour = (engine.submit(Request(scene(0), *ask)) for ask in ((prompt, max_new_tokens), (BRIEF, 1)))
        with pytest.raises(PermanentFailure, match=words) as failure:
            future.result(TIMEOUT_S)
        assert failure.value.code is Code.MODEL_ERROR
        assert neighbour.result(TIMEOUT_S)


def fail_on_poison(images: torch.Tensor) -> None:
    if is_poison(images).any():
        raise RuntimeError("a poisoned image\nwith a trace")


def nan_for_poison(images: torch.Tensor) -> torch.Tensor:
    return torch.where(is_poison(images)[:, None, None, None], torch.nan, images)


@pytest.mark.parametrize(("act", "words"), [(fail_on_poison, "a poisoned image$"), (nan_for_poison, "NaN")])
def test_image_that_the_model_fails_on_fails_alone(kosmos: Kosmos, plain: Plain, act: Any, words: str) -> None:
    requests = [Request(POISON if seed in (2, 3) else scene(seed), BRIEF, 8) for seed in range(8)]
    with at_every_image_batch(kosmos, act), Engine(kosmos, 8) as engine:
        futures = [engine.submit(request) for request in requests]
        for index, (request, future) in enumerate(zip(requests, futures, strict=True)):
            if index in (2, 3):
                with pytest.raises(PermanentFailure, match=words) as failure:
                    future.result(TIMEOUT_S)
                assert failure.value.code is Code.MODEL_ERROR
            else:
                assert future.result(TIMEOUT_S).token_ids == plain(request)
        assert engine.figures.batch_size == 8


def fail(images: torch.Tensor) -> None:
    raise RuntimeError("CUDA error: an illegal memory access was encountered")


def out_of_memory(images: torch.Tensor) -> None:
    raise torch.OutOfMemoryError("CUDA out of memory")


def die(images: torch.Tensor) -> None:
    raise SystemExit


@pytest.mark.parametrize(
    ("act", "words"),
    [
        (fail, "fails on every image on cpu: RuntimeError: CUDA error"),
        (lambda images: images * torch.nan, "NaN for every image"),
        (out_of_memory, "no memory for a single image"),
        (die, "thread died: SystemExit"),
    ],
)
def test_broken_model_is_the_workers_fault_and_everyone_is_told(kosmos: Kosmos, act: Any, words: str) -> None:
    with at_every_image_batch(kosmos, act), Engine(kosmos, 4) as engine:
        futures = [engine.submit(Request(scene(seed), PROMPTS[seed % 4], 4)) for seed in range(12)]
        for future in futures:
            with pytest.raises(EngineBroken, match=words):
                future.result(TIMEOUT_S)
        with pytest.raises(EngineBroken, match=words):
            engine.submit(Request(scene(0), BRIEF, 4)).result(TIMEOUT_S)


def test_batch_is_halved_where_memory_runs_out(kosmos: Kosmos, plain: Plain) -> None:
    sizes = []

    def little_memory(images: torch.Tensor) -> None:
        sizes.append(len(images))
        if len(images) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")

    requests = [Request(scene(seed), BRIEF, 6) for seed in range(20)]
    with at_every_image_batch(kosmos, little_memory), Engine(kosmos, 8, max_wait_s=5) as engine:
        generations = done([engine.submit(request) for request in requests])
        assert engine.figures.batch_size == 2
    assert [generation.token_ids for generation in generations] == [plain(request) for request in requests]
    assert sizes[:2] == [8, 4]
    assert max(sizes[3:]) <= 4


# ---- how it ends


def close_during_a_batch(kosmos: Kosmos, grace_s: float) -> tuple[Future[Generation], list[Future[Generation]]]:
    """One request that was running when the engine was closed, and three that were not."""
    gate = Gate()
    with at_every_image_batch(kosmos, gate):
        engine = Engine(kosmos, 1)
        running = engine.submit(Request(scene(0), BRIEF, 48))
        assert gate.entered.wait(TIMEOUT_S)
        others = [engine.submit(Request(scene(1), BRIEF, 48)) for _ in range(2)]
        closing = threading.Thread(target=engine.close, args=(grace_s,))
        closing.start()
        assert isinstance(others[0].exception(TIMEOUT_S), EngineClosed)
        others.append(engine.submit(Request(scene(2), BRIEF, 48)))
        gate.opened.set()
        closing.join(TIMEOUT_S)
        assert not closing.is_alive()
    return running, others


def test_close_finishes_what_runs_and_hands_back_what_waits(kosmos: Kosmos) -> None:
    running, others = close_during_a_batch(kosmos, grace_s=TIMEOUT_S)
    assert running.result(0).finish_reason == "stop"
    assert all(isinstance(future.exception(0), EngineClosed) for future in others)


def test_close_without_grace_stops_what_runs_at_the_next_token(kosmos: Kosmos) -> None:
    running, others = close_during_a_batch(kosmos, grace_s=0)
    assert all(isinstance(future.exception(0), EngineClosed) for future in (running, *others))


def test_closing_twice_is_closing(kosmos: Kosmos) -> None:
    engine = Engine(kosmos, 2)
    engine.close()
    engine.close()
    assert isinstance(engine.submit(Request(scene(0), BRIEF, 1)).exception(0), EngineClosed)


# ---- the engine without a model


def test_null_engine_answers_at_once_with_a_grounded_snowman() -> None:
    with NullEngine() as engine:
        generation = engine.submit(Request(POISON, "anything", 64)).result(0)
        assert engine.figures.images == 1
    patches = [token - engine.first_patch_id for token in generation.token_ids if token >= engine.first_patch_id]
    assert patches == [44, 863]
    assert "<phrase> a snowman</phrase><object><patch_index_0044><patch_index_0863></object>" in generation.raw_text
    assert len(generation.logprobs) == len(generation.token_ids)
    assert generation.finish_reason == "stop"
