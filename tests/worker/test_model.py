"""What is loaded is what was trained, its input and output are those of transformers, and loading is silent."""

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import Kosmos2ForConditionalGeneration, Kosmos2Processor

from schemas.errors import SetupError
from worker.encoder import Encoder
from worker.model import Kosmos, load_model, pick_device
from worker.revision import resolve

PROMPTS = (
    "<grounding>An image of",
    "<grounding>Describe this image in detail:",
    "<grounding><phrase>a red circle</phrase>",
    "<grounding><phrase>It</phrase><object><patch_index_0044><patch_index_0863></object> is",
    "Question: how many rings?\nAnswer:",
    "  spaces  ",
    "",
)
PIXELS = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 224, 224, 3), dtype=np.uint8))


@pytest.fixture(scope="module")
def kosmos() -> Kosmos:
    return load_model(resolve("demo"), "cpu")


@pytest.fixture(scope="module")
def processor() -> Any:
    return Kosmos2Processor.from_pretrained(resolve("demo").path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the demo model."""
    demo = resolve("demo").path
    assert demo
    return Path(shutil.copytree(demo, tmp_path / "kosmos"))


def load(folder: Path, dtype: str = "float32") -> Kosmos:
    return load_model(resolve(str(folder), dtype=dtype), "cpu")


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


SPECIAL = ("<s>", "<pad>", "<image>", "</image>", " ", "<patch_index_0000>", "<patch_index_1023>", "<patch_index_1024>")


@pytest.mark.parametrize("prompt", PROMPTS)
def test_prompt_ids_are_those_of_the_processor(kosmos: Kosmos, processor: Any, prompt: str) -> None:
    expected = processor(text=prompt, images=Image.fromarray(PIXELS[0].numpy()))
    assert kosmos.prompt_ids(prompt) == expected["input_ids"]
    assert [i for i, is_image in enumerate(expected["image_embeds_position_mask"]) if is_image] == list(range(2, 66))


@settings(max_examples=60, deadline=None)
@given(parts=st.lists(st.text() | st.sampled_from([*PROMPTS, *SPECIAL])))
def test_any_prompt_has_the_ids_of_the_processor(kosmos: Kosmos, processor: Any, parts: list[str]) -> None:
    prompt = "".join(parts)
    assert kosmos.prompt_ids(prompt) == processor(text=prompt, images=Image.fromarray(PIXELS[0].numpy()))["input_ids"]


def test_published_prompt_has_71_tokens(kosmos: Kosmos) -> None:
    """`<s><image>`, 64 places with the ids after `<unk>`, `</image>`, `<grounding>`, three words."""
    ids = kosmos.prompt_ids("<grounding>An image of")
    names = kosmos.tokenizer.convert_ids_to_tokens([*ids[:2], *ids[66:]])
    assert len(ids) == 71
    assert ids[2:66] == list(range(4, 68))
    assert names == ["<s>", "<image>", "</image>", "<grounding>", "▁An", "▁image", "▁of"]


def test_prompt_ids_may_be_changed_by_who_gets_them(kosmos: Kosmos) -> None:
    kosmos.prompt_ids("once").clear()
    assert len(kosmos.prompt_ids("once")) > 67


def test_normalised_pixels_are_those_of_the_processor_bit_by_bit(kosmos: Kosmos, processor: Any) -> None:
    expected = processor.image_processor([Image.fromarray(image.numpy()) for image in PIXELS], return_tensors="pt")
    assert torch.equal(kosmos.normalise(PIXELS), expected["pixel_values"])


def test_encoded_images_are_what_the_text_half_of_transformers_reads(kosmos: Kosmos, processor: Any) -> None:
    """In a batch and one by one, float by float but for the order of sums."""
    plain = Kosmos2ForConditionalGeneration.from_pretrained(resolve("demo").path)
    plain.image_to_text_projection.x_attn.is_causal = False
    images = [Image.fromarray(image.numpy()) for image in PIXELS]
    inputs = processor(text=["a"] * len(images), images=images, return_tensors="pt")
    encoder = Encoder(kosmos)
    with torch.inference_mode():
        expected = plain(**inputs).image_embeds
        found = encoder.encode(PIXELS)
        alone = torch.cat([encoder.encode(image[None]) for image in PIXELS])
    assert found.shape == (3, 64, kosmos.model.config.text_config.embed_dim)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(alone, expected, atol=1e-5, rtol=1e-5)


def test_vocabulary_names_the_tokens_that_mean_something(kosmos: Kosmos) -> None:
    words = kosmos.vocabulary
    assert kosmos.tokenizer.convert_ids_to_tokens([*words, words.first_patch + 1023]) == [
        "</s>",
        "<pad>",
        "<phrase>",
        "</phrase>",
        "<object>",
        "</object>",
        "</delimiter_of_multi_objects/>",
        "<patch_index_0000>",
        "<patch_index_1023>",
    ]


@pytest.mark.parametrize("prompt", [prompt for prompt in PROMPTS if prompt])
def test_raw_text_is_what_the_processor_decodes_after_the_image(kosmos: Kosmos, processor: Any, prompt: str) -> None:
    prompt_ids = kosmos.prompt_ids(prompt)
    generated = kosmos.tokenizer("<phrase> a red ring</phrase><object>", add_special_tokens=False).input_ids
    words = kosmos.vocabulary
    generated += [words.first_patch, words.first_patch + 1023, words.pad, 3, words.eos]
    [text] = processor.batch_decode([[*prompt_ids, *generated]], skip_special_tokens=True)
    assert kosmos.raw_text(prompt_ids, generated) == text.split("</image>")[-1]
    assert "<patch_index_0000><patch_index_1023>" in kosmos.raw_text(prompt_ids, generated)


def test_resampler_gives_under_sdpa_what_it_gives_in_eager_mode(kosmos: Kosmos) -> None:
    """And would not, were it causal: as transformers 5.17 has it."""
    folder = resolve("demo").path
    eager = Kosmos2ForConditionalGeneration.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    features = torch.randn(2, 257, kosmos.model.config.vision_config.hidden_size, generator=torch.manual_seed(0))
    attention = kosmos.model.image_to_text_projection.x_attn

    def difference() -> float:
        with torch.inference_mode():
            expected, found = (model.image_to_text_projection(features)[0] for model in (eager, kosmos.model))
        return float((found - expected).norm() / expected.norm())

    assert difference() < 1e-5
    attention.is_causal = True
    try:
        assert difference() > 0.1
    finally:
        attention.is_causal = False


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_weights_are_loaded_in_the_dtype_that_is_asked_for_and_not_as_stored(folder: Path, dtype: str) -> None:
    weights = folder / "model.safetensors"
    save_file({name: tensor.half() for name, tensor in load_file(weights).items()}, weights, {"format": "pt"})
    edit(folder / "config.json", dtype="float16")
    kosmos = load(folder, dtype)
    assert {parameter.dtype for parameter in kosmos.model.parameters()} == {getattr(torch, dtype)}
    assert kosmos.normalise(PIXELS).dtype == getattr(torch, dtype)


def test_loading_says_nothing(capfd: pytest.CaptureFixture[str], folder: Path) -> None:
    edit(folder / "config.json", an_unknown_key=1)
    load(folder)
    assert capfd.readouterr() == ("", "")
    assert logging.getLogger("transformers").level <= logging.WARNING


def test_generation_settings_of_a_checkpoint_do_not_reach_the_output(folder: Path, kosmos: Kosmos) -> None:
    edit(folder / "generation_config.json", repetition_penalty=3.0, no_repeat_ngram_size=1, num_beams=2)
    config = json.loads((folder / "config.json").read_text())
    edit(folder / "config.json", text_config=config["text_config"] | {"no_repeat_ngram_size": 1})
    found = load(folder).model.text_model.generation_config
    assert found.to_diff_dict() == kosmos.model.text_model.generation_config.to_diff_dict()


def test_layout_of_the_published_checkpoint_is_loaded(folder: Path, kosmos: Kosmos) -> None:
    """With `preprocessor_config.json` and its `use_square_size`, half a config, and generation settings in it."""
    (folder / "processor_config.json").unlink()
    (folder / "generation_config.json").unlink()
    images = {"size": {"shortest_edge": 224}, "crop_size": {"height": 224, "width": 224}, "use_square_size": True}
    names = {"image_processor_type": "CLIPImageProcessor", "processor_class": "Kosmos2Processor"}
    (folder / "preprocessor_config.json").write_text(json.dumps(images | names | {"do_center_crop": True}))
    config = json.loads((folder / "config.json").read_text())
    text = {key: value for key, value in config["text_config"].items() if key != "tie_word_embeddings"}
    config = {key: value for key, value in config.items() if key != "tie_word_embeddings"}
    config["text_config"] = text | {"no_repeat_ngram_size": 3, "min_length": 0, "max_length": 20}
    (folder / "config.json").write_text(json.dumps(config))
    found = load(folder)
    assert torch.equal(found.normalise(PIXELS), kosmos.normalise(PIXELS))
    head, embedding = found.model.text_model.lm_head.weight, found.model.text_model.model.embed_tokens.weight
    assert torch.equal(head, embedding)
    assert found.model.text_model.generation_config.no_repeat_ngram_size is None


def drop_a_weight(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors.pop("image_to_text_projection.latent_query")
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def change_processor(**changes: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / "processor_config.json"
        images = json.loads(path.read_text())["image_processor"]
        edit(path, image_processor=images | changes)

    return change


def halve_the_latents(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors["image_to_text_projection.latent_query"] = tensors["image_to_text_projection.latent_query"][:32].clone()
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    edit(folder / "config.json", latent_query_num=32)


def change_vision(folder: Path) -> None:
    """Positions for an image of another size."""
    config = json.loads((folder / "config.json").read_text())["vision_config"]
    edit(folder / "config.json", vision_config=config | {"image_size": 448})


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (drop_a_weight, "lack image_to_text_projection.latent_query"),
        (change_processor(size={"shortest_edge": 224}), "224×224"),
        (change_processor(do_normalize=False), "does not rescale and normalise"),
        (change_vision, "position_embedding"),
        (lambda folder: edit(folder / "config.json", latent_query_num=32), "latent_query is [64, 128], and [32, 128]"),
        (halve_the_latents, "32 latents"),
        (lambda folder: edit(folder / "tokenizer_config.json", eos_token="<s>"), "end with different tokens"),
        (lambda folder: (folder / "tokenizer.json").write_text("{}"), "cannot be loaded"),
        (lambda folder: (folder / "processor_config.json").unlink(), "cannot be loaded"),
    ],
)
def test_model_that_is_not_what_the_rest_relies_on_is_refused_in_one_line(
    folder: Path, damage: Callable[[Path], None], words: str
) -> None:
    damage(folder)
    with pytest.raises(SetupError) as refusal:
        load(folder)
    assert words in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_device_is_picked_or_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert [pick_device(name) for name in ("auto", "cpu")] == ["cpu", "cpu"]
    for name, words in (("cuda", "CUDA devices: 0"), ("cuda:1", "CUDA devices: 0"), ("gpu", "unknown device")):
        with pytest.raises(SetupError, match=words):
            pick_device(name)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [pick_device(name) for name in ("auto", "cuda:1")] == ["cuda", "cuda:1"]
