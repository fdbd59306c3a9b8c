"""A KOSMOS-2 in memory, loaded safely and checked to be what the rest relies on."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from safetensors import SafetensorError
from transformers import GenerationConfig, Kosmos2ForConditionalGeneration, Kosmos2Processor
from transformers.utils import logging

from schemas.errors import SetupError
from worker.faults import describe
from worker.generation import IMAGE_SIZE, Vocabulary
from worker.revision import CONFIG_FILES, ModelRef, check_folder

IMAGE_TOKENS = 64
IMAGE_START = 2
"""Of a prompt's ids: `<s>` and `<image>` come before the places of the image."""

PATCHES = 1024
_CPU_BFLOAT16 = ("amx_bf16", "avx512_bf16", "bf16", "sve_bf16")
_TAGS = ("<phrase>", "</phrase>", "<object>", "</object>", "</delimiter_of_multi_objects/>")
_CELL = re.compile("<patch_index_(0[0-9]{3}|10[01][0-9]|102[0-3])>")
_PATCH_TOKENS = [f"<patch_index_{cell:04d}>" for cell in range(PATCHES)]


class Kosmos:
    """A loaded KOSMOS-2: the model, its tokenizer, and the way into and out of it."""

    def __init__(self, model: Any, processor: Any) -> None:
        self.model = model
        self.tokenizer = processor.tokenizer
        self.device: torch.device = model.device
        self.dtype: torch.dtype = model.dtype
        self.max_positions: int = model.config.text_config.max_position_embeddings
        config = model.config.text_config
        self.vocabulary = Vocabulary(
            config.eos_token_id, config.pad_token_id, *self.tokenizer.convert_tokens_to_ids([*_TAGS, _PATCH_TOKENS[0]])
        )
        self._first_image_id: int = self.tokenizer.unk_token_id + 1
        self._cached_ids = lru_cache(maxsize=4096)(self._tokenise)  # a night has few prompts and millions of images
        images = self.image_processor = processor.image_processor
        self._rescale: float = images.rescale_factor
        self._mean, self._std = (
            torch.tensor(values, dtype=torch.float32, device=self.device).view(3, 1, 1)
            for values in (images.image_mean, images.image_std)
        )

    def prompt_ids(self, prompt: str) -> list[int]:
        """What Kosmos2Processor gives for this text with one image: `<s><image>`, 64 places, `</image>`, the prompt."""
        cells = _CELL.findall(prompt)
        # prompts that differ in their location tokens alone are one to the cache
        ids = list(self._cached_ids(_CELL.sub(_PATCH_TOKENS[0], prompt) if cells else prompt))
        first = self.vocabulary.first_patch
        for place, cell in zip([at for at, id_ in enumerate(ids) if id_ == first], cells, strict=True):
            ids[place] = first + int(cell)
        return ids

    def ids_of(self, prompt: str, answer: str = "") -> tuple[list[int], list[int]]:
        """The ids of the prompt, and those that an answer after a space adds to them."""
        ids = self.prompt_ids(prompt)
        if not answer:
            return ids, []
        whole = self.prompt_ids(f"{prompt} {answer}")
        same = next((at for at, (one, other) in enumerate(zip(ids, whole)) if one != other), len(ids))  # noqa: B905
        return whole[:same], whole[same:]

    def _tokenise(self, prompt: str) -> tuple[int, ...]:
        places = " ".join(["<image>"] * (1 + IMAGE_TOKENS))
        text = f"{self.tokenizer.bos_token}{places} </image> {prompt.strip()}"
        ids: list[int] = self.tokenizer(text, add_special_tokens=False).input_ids
        ids[IMAGE_START : IMAGE_START + IMAGE_TOKENS] = range(self._first_image_id, self._first_image_id + IMAGE_TOKENS)
        return tuple(ids)

    def normalise(self, pixels: torch.Tensor) -> torch.Tensor:
        """uint8 [n, 224, 224, 3] as [n, 3, 224, 224] in the model's dtype.

        In float32 bit by bit what the image processor gives: rescaled in float64, normalised in float32.
        """
        planes = pixels.permute(0, 3, 1, 2).contiguous()
        rescaled = planes.double().mul_(self._rescale).float()
        return rescaled.sub_(self._mean).div_(self._std).to(self.dtype)

    def raw_text(self, prompt_ids: list[int], generated_ids: list[int]) -> str:
        """Prompt and answer as text: what follows the image's `</image>`, with tags, without `<s>`, `</s>`, `<pad>`."""
        end = IMAGE_START + IMAGE_TOKENS  # decoding from `</image>` on keeps the space that a first word would lose
        text: str = self.tokenizer.decode([*prompt_ids[end:], *generated_ids], skip_special_tokens=True)
        return text.removeprefix("</image>")


def pick_device(device: str) -> str:
    """The device; for `auto`, `cuda` where there is one and else `cpu`. Raises SetupError for one that is not here."""
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        wanted = torch.device(device)
    except RuntimeError:
        raise SetupError(f"unknown device {device!r}: give auto, cpu, cuda or cuda:N") from None
    if wanted.type not in ("cuda", "cpu"):
        raise SetupError(f"no support for device {device!r}: give auto, cpu, cuda or cuda:N")
    if wanted.type == "cuda" and (wanted.index or 0) >= torch.cuda.device_count():
        raise SetupError(f"no device {device!r} here (CUDA devices: {torch.cuda.device_count()}): give auto or cpu")
    return device


def pick_dtype(dtype: str, device: str) -> str:
    """What the device computes in where the recipe says `dtype`.

    A CPU that has to emulate 16 bits takes float32, which is several times faster and as near to the truth as can be.
    Raises SetupError for a GPU that would have to emulate bfloat16.
    """
    if device == "cpu":
        emulated = dtype == "float16" or (
            dtype == "bfloat16" and not any(torch.cpu.get_capabilities().get(name) for name in _CPU_BFLOAT16)
        )
        return "float32" if emulated else dtype
    if dtype == "bfloat16" and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise SetupError(f"{torch.cuda.get_device_name(device)} has no bfloat16: give --dtype float16, or float32")
    return dtype


def load_model(ref: ModelRef, device: str, dtype: str | None = None) -> Kosmos:
    """The model on the device, in the dtype of `ref` or another, ready to generate.

    Raises SetupError where it cannot be.
    """
    kosmos = load_unchecked(ref, device, dtype)
    for _, wrong in faults_of(kosmos, dtype or ref.dtype):
        raise SetupError(f"{ref.name} is no KOSMOS-2 that Kosmograph can run: {wrong}")
    return kosmos


def load_unchecked(ref: ModelRef, device: str, dtype: str | None = None) -> Kosmos:
    """The same, whatever its geometry and its tokens are."""
    device, dtype = pick_device(device), dtype or ref.dtype
    folder = ref.path or _download(ref)
    check_folder(folder)
    try:
        with _quiet():
            processor = Kosmos2Processor.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
            model = _load_weights(folder, dtype, device)
        return Kosmos(model, processor)
    except (AttributeError, KeyError, OSError, RuntimeError, SafetensorError, TypeError, ValueError) as error:
        raise SetupError(f"{folder} cannot be loaded on {device}: {describe(error)}") from error


def _download(ref: ModelRef) -> Path:
    """The folder of a hub model in the hub's cache: weights as safetensors, config and tokenizer, nothing else."""
    try:
        patterns = ["*.safetensors", "*.safetensors.index.json", *CONFIG_FILES]
        return Path(snapshot_download(ref.name, revision=ref.revision, allow_patterns=patterns))
    except (OSError, ValueError) as error:
        raise SetupError(
            f"{ref.name} at {ref.revision[:12]} cannot be downloaded ({describe(error)}): "
            "check the connection, or give a folder that holds it"
        ) from None


def _load_weights(folder: Path, dtype: str, device: str) -> Any:
    """The transformers model. Raises ValueError for a weight that does not fit: transformers would make it up."""
    model, loading = Kosmos2ForConditionalGeneration.from_pretrained(
        folder,
        dtype=getattr(torch, dtype),  # without it transformers keeps what is stored: fp16 on a CPU is slow
        device_map=device,
        use_safetensors=True,
        local_files_only=True,
        trust_remote_code=False,
        ignore_mismatched_sizes=True,  # told below by name; transformers refers to a table that was silenced
        output_loading_info=True,
    )
    for name in sorted(loading["missing_keys"]):
        raise ValueError(f"its weights lack {name}")
    for name, stored, wanted in sorted(loading["mismatched_keys"]):
        raise ValueError(f"its {name} is {list(stored)}, and {list(wanted)} by its config")
    model.eval().requires_grad_(False)
    # transformers 5.17 runs the resampler causally under SDPA, which has no mask there: wrong captions, silently
    model.image_to_text_projection.x_attn.is_causal = False
    # the outer `generate` reads this one, and whatever a checkpoint leaves in it would bend the output
    config = model.config.text_config
    model.text_model.generation_config = GenerationConfig(
        bos_token_id=config.bos_token_id, eos_token_id=config.eos_token_id, pad_token_id=config.pad_token_id
    )
    return model


def faults_of(kosmos: Kosmos, dtype: str) -> Iterator[tuple[str, str]]:
    """What of the geometry and the tokens that parser and engine rely on is otherwise: its topic, and how it is."""
    config, tokenizer, images = kosmos.model.config, kosmos.tokenizer, kosmos.image_processor
    patch_ids = tokenizer.convert_tokens_to_ids(_PATCH_TOKENS)
    size = dict(images.size)
    sees = config.vision_config.image_size
    for topic, holds, wrong in (
        (
            "config",
            config.vision_config.hidden_act == "quick_gelu",
            f"its vision has {config.vision_config.hidden_act}",
        ),
        ("config", config.latent_query_num == IMAGE_TOKENS, f"it has {config.latent_query_num} latents, not 64"),
        ("config", kosmos.dtype == getattr(torch, dtype), f"it was loaded as {kosmos.dtype}, not {dtype}"),
        (
            "tokens",
            patch_ids == list(range(kosmos.vocabulary.first_patch, kosmos.vocabulary.first_patch + PATCHES)),
            "its 1,024 location tokens do not have ids in a row",
        ),
        (
            "tokens",
            len(tokenizer) <= config.text_config.vocab_size,
            "its tokenizer has more tokens than its text model",
        ),
        (
            "tokens",
            tokenizer.eos_token_id == kosmos.vocabulary.eos,
            "its tokenizer and its text model end with different tokens",
        ),
        (
            "image size",
            size == {"height": IMAGE_SIZE, "width": IMAGE_SIZE},
            f"its processor makes images of {size}, not 224×224",
        ),
        ("image size", images.do_rescale and images.do_normalize, "its processor does not rescale and normalise"),
        ("image size", sees == IMAGE_SIZE, f"it sees {sees} pixels, not 224"),
    ):
        if not holds:
            yield topic, wrong


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the progress bars and advice of transformers, which would break the display of progress."""
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
