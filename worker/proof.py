"""Whether a model on this device is what it should be, part by part: for `doctor`, each as soon as it is known."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from huggingface_hub import hf_hub_download
from torch.nn.functional import normalize

from schemas.errors import ImageFailure
from schemas.grounding import Grounding, iou, parse
from schemas.recipes import prompt_for
from schemas.settings import DEFAULT_MODEL, Settings
from schemas.storage import StorageOptions
from schemas.uris import file_uri
from worker.cores import torch_threads
from worker.engine import Engine
from worker.generation import IMAGE_SIZE, Pixels, Request
from worker.images import Limits
from worker.loader import Loader
from worker.model import Kosmos, faults_of, load_unchecked, pick_device, pick_dtype
from worker.revision import DEMO, ModelRef, resolve

SNOWMAN_FILE = "snowman.jpg"
RESAMPLER_MOST = 1e-3
"""The largest difference between the resampler under SDPA and in eager mode, of its largest output, in float32."""
ROUNDINGS = 8
"""In 16 bits it may be so many roundings: 0.06 in bfloat16. A resampler that runs causally is off by 1."""
NEW_TOKENS = 64


class Proof(NamedTuple):
    """One thing that was looked at: `ok`, `note` or `bad`; what it was; what was found."""

    state: str
    what: str
    found: str


@dataclass(frozen=True)
class Golden:
    """A raw text that the model is known to give of a picture in float32, and where that is known from."""

    raw_text: str
    source: str

    @property
    def grounding(self) -> Grounding:
        return parse(self.raw_text)


SNOWMAN = Golden(
    "<grounding> An image of<phrase> a snowman</phrase><object><patch_index_0044><patch_index_0863></object> warming"
    " himself by<phrase> a fire</phrase><object><patch_index_0005><patch_index_0911></object>.",
    "published",
)
"""The model card's first example (microsoft/kosmos-2-patch14-224)."""

SHAPES = Golden(
    "<grounding> An image of<phrase> a red square</phrase><object><patch_index_0163><patch_index_0460></object> and"
    "<phrase> a blue circle</phrase><object><patch_index_0463><patch_index_0859></object>.",
    "known",
)
"""What the demo model says of `drawn_shapes`."""


def prove(ref: ModelRef, settings: Settings, golden: Path | None) -> Iterator[Proof]:
    """Weights, config, tokens, image size, resampler, and a caption that is known: each as soon as it has been seen.

    `golden` is the picture of that caption, where the model's folder and the hub do not have it. Raises SetupError for
    a model that cannot be loaded.
    """
    device = pick_device(settings.device)
    dtype = pick_dtype(ref.dtype, device)
    torch.set_num_threads(torch_threads(settings, gpu=device.startswith("cuda")))
    kosmos = load_unchecked(ref, device, dtype)
    yield Proof("ok", "weights", f"{_millions(kosmos.model)} million, on {device} in {dtype}")
    is_sound = True
    for proof in _parts(kosmos, dtype):
        is_sound = is_sound and proof.state != "bad"
        yield proof
    if is_sound:
        yield _caption(ref, kosmos, settings, golden)


def _parts(kosmos: Kosmos, dtype: str) -> Iterator[Proof]:
    yield from _geometry(kosmos, dtype)
    yield resampler(kosmos)


def _geometry(kosmos: Kosmos, dtype: str) -> Iterator[Proof]:
    config, first = kosmos.model.config, kosmos.vocabulary.first_patch
    text, vision = config.text_config, config.vision_config
    right = {
        "config": f"kosmos-2: vision {vision.num_hidden_layers} × {vision.hidden_size},"
        f" {config.latent_query_num} latents, text {text.layers} × {text.embed_dim}, {text.vocab_size:,} tokens",
        "tokens": f"1,024 locations in a row from {first}, and the model knows every tag",
        "image size": f"{IMAGE_SIZE}×{IMAGE_SIZE}, for the processor and for the model",
    }
    faults = list(faults_of(kosmos, dtype))
    for what, found in right.items():
        wrong = [words for topic, words in faults if topic == what]
        yield Proof("bad", what, "; ".join(wrong)) if wrong else Proof("ok", what, found)


def resampler(kosmos: Kosmos) -> Proof:
    """Its attention as it runs against eager mode, on the same random input.

    transformers 5.17 runs it causally under SDPA: every caption is wrong then, and nothing says so.
    """
    width = kosmos.model.config.vision_config.hidden_size
    seen = normalize(torch.randn(2, 257, width, generator=torch.Generator().manual_seed(0)), dim=-1)
    seen = seen.to(kosmos.device, kosmos.dtype)
    resample = kosmos.model.image_to_text_projection
    with torch.inference_mode():
        found = resample(seen)[0].float()
        with _eager(resample.x_attn):
            expected = resample(seen)[0].float()
    difference = float((found - expected).abs().max() / expected.abs().max())
    most = max(RESAMPLER_MOST, ROUNDINGS * torch.finfo(kosmos.dtype).eps)
    kind = resample.x_attn.config._attn_implementation
    measured = f"{kind} and eager differ by {difference:.1e} of the largest value (at most {most:.0e})"
    return Proof("ok" if difference <= most else "bad", "resampler", measured)


@contextmanager
def _eager(attention: Any) -> Iterator[None]:
    """Within the block this attention, and no other, runs in eager mode."""
    config = attention.config
    attention.config = copy.copy(config)
    attention.config._attn_implementation = "eager"
    try:
        yield
    finally:
        attention.config = config


def _caption(ref: ModelRef, kosmos: Kosmos, settings: Settings, golden: Path | None) -> Proof:
    """The known caption, or why it is not asked for."""
    if golden is None and ref.revision == resolve(DEMO).revision:
        return caption(kosmos, drawn_shapes(), SHAPES)
    path = golden or find_snowman(ref)
    if path is None:
        remedy = f"--golden FILE.jpg takes {SNOWMAN_FILE} of huggingface.co/{DEFAULT_MODEL}"
        return Proof("note", "caption", f"not compared with the published one, for want of its picture: {remedy}")
    limits, storage = Limits.from_settings(settings), StorageOptions.of(settings)
    with Loader(limits, 1, storage) as loader:
        try:
            image = loader.load(file_uri(path.absolute()), exact=True).result()
        except ImageFailure as failure:
            return Proof("bad", "caption", f"{path}: {failure}")
    return caption(kosmos, image.pixels, SNOWMAN)


def find_snowman(ref: ModelRef) -> Path | None:
    """The published picture: in the model's folder, or else from the hub's cache or the hub; None where it is not.

    A model of the hub that is not KOSMOS-2 itself has no published caption.
    """
    if ref.path is not None and (ref.path / SNOWMAN_FILE).is_file():
        return ref.path / SNOWMAN_FILE
    if ref.path is None and ref.name != DEFAULT_MODEL:
        return None
    try:
        revision = None if ref.path else ref.revision
        return Path(hf_hub_download(DEFAULT_MODEL, SNOWMAN_FILE, revision=revision))
    except (OSError, ValueError):  # no connection, offline by choice, a revision without it
        return None


def caption(kosmos: Kosmos, pixels: Pixels, golden: Golden) -> Proof:
    """The brief caption against the known one: to the letter in float32, in 16 bits its first box by and large."""
    with Engine(kosmos, slots=1) as engine:
        raw_text = engine.submit(Request(pixels, prompt_for("brief"), NEW_TOKENS)).result().raw_text
    if raw_text == golden.raw_text:
        boxes = ", ".join(one.phrase for one in golden.grounding.entities)
        return Proof("ok", "caption", f"to the letter the {golden.source} one, with its boxes ({boxes})")
    texts = f"{raw_text!r}; {golden.source} is {golden.raw_text!r}"
    if kosmos.dtype != torch.float32 and finds_first(raw_text, golden):
        return Proof("note", "caption", f"in {str(kosmos.dtype).removeprefix('torch.')} it says {texts}")
    return Proof(
        "bad", "caption", f"it says {texts}: other weights (trained further?), or arithmetic not to be trusted"
    )


def finds_first(raw_text: str, golden: Golden) -> bool:
    """Whether the first phrase of the known text has a box (IoU of at least 0.5 with the known one)."""
    wanted = golden.grounding.entities[0]
    return any(
        iou(box.corners, wanted.boxes[0].corners) >= 0.5
        for entity in parse(raw_text).entities
        if entity.phrase == wanted.phrase
        for box in entity.boxes
    )


def drawn_shapes() -> Pixels:
    """A red square, and right below it a blue circle, on white."""
    pixels = np.full((IMAGE_SIZE, IMAGE_SIZE, 3), 255, np.uint8)
    rows, columns = np.mgrid[:IMAGE_SIZE, :IMAGE_SIZE]
    pixels[40:104, 24:88] = (215, 35, 40)
    pixels[(rows - 144) ** 2 + (columns - 152) ** 2 <= 40**2] = (45, 75, 220)
    return pixels


def _millions(model: Any) -> str:
    return f"{sum(one.numel() for one in model.parameters()) / 1e6:,.1f}"
