"""`doctor --model`: what is right is said part by part, and each thing that is wrong is found under its name."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from schemas.settings import DEFAULT_MODEL, Settings
from worker.model import Kosmos, load_model
from worker.proof import SHAPES, SNOWMAN, Golden, Proof, caption, drawn_shapes, find_snowman, prove, resampler
from worker.revision import ModelRef, resolve

SETTINGS = Settings(device="cpu")
PARTS = ["weights", "config", "tokens", "image size", "resampler", "caption"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the demo model."""
    demo = resolve("demo").path
    assert demo
    return Path(shutil.copytree(demo, tmp_path / "kosmos"))


@pytest.fixture(scope="module")
def kosmos() -> Kosmos:
    return load_model(resolve("demo"), "cpu")


@pytest.fixture(scope="module")
def in_16_bits() -> Kosmos:
    return load_model(resolve("demo"), "cpu", "bfloat16")


def proofs(model: str | Path, golden: Path | None = None, dtype: str = "float32") -> list[Proof]:
    return list(prove(resolve(str(model), dtype=dtype), SETTINGS, golden))


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def reword(golden: Golden, old: str, new: str) -> Golden:
    assert old in golden.raw_text
    return replace(golden, raw_text=golden.raw_text.replace(old, new))


def test_demo_model_is_right_in_every_part() -> None:
    found = proofs("demo")
    assert [(proof.state, proof.what) for proof in found] == [("ok", part) for part in PARTS]
    assert "1,024" in found[2].found
    assert found[-1].found.endswith("(a red square, a blue circle)")


def test_copy_of_the_demo_model_is_known_by_its_weights(folder: Path) -> None:
    assert proofs(folder)[-1] == proofs("demo")[-1]


def test_proofs_come_one_by_one() -> None:
    """The first is there before the model has said anything."""
    shown = prove(resolve("demo"), SETTINGS, None)
    assert next(shown).what == "weights"
    shown.close()


def drop_a_tag(folder: Path) -> None:
    """The processor of transformers then makes one, which the model has never seen."""
    text = (folder / "tokenizer.json").read_text()
    (folder / "tokenizer.json").write_text(text.replace("<object>", "<thing>"))


def swap_two_locations(folder: Path) -> None:
    text = (folder / "tokenizer.json").read_text()
    for old, new in (("_0007>", "_XXXX>"), ("_0008>", "_0007>"), ("_XXXX>", "_0008>")):
        text = text.replace(f"<patch_index{old}", f"<patch_index{new}")
    (folder / "tokenizer.json").write_text(text)


def halve_the_latents(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors["image_to_text_projection.latent_query"] = tensors["image_to_text_projection.latent_query"][:32].clone()
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    edit(folder / "config.json", latent_query_num=32)


def enlarge_the_images(folder: Path) -> None:
    path = folder / "processor_config.json"
    images = json.loads(path.read_text())["image_processor"]
    edit(path, image_processor=images | {"size": {"height": 448, "width": 448}})


@pytest.mark.parametrize(
    ("damage", "what", "words"),
    [
        (halve_the_latents, "config", "32 latents"),
        (swap_two_locations, "tokens", "1,024 location tokens do not have ids in a row"),
        (drop_a_tag, "tokens", "more tokens than its text model"),
        (lambda folder: edit(folder / "tokenizer_config.json", eos_token="<s>"), "tokens", "different tokens"),
        (enlarge_the_images, "image size", "448"),
    ],
)
def test_what_is_wrong_is_found_under_its_name_and_no_caption_is_asked_for(
    folder: Path, damage: Callable[[Path], None], what: str, words: str
) -> None:
    damage(folder)
    found = proofs(folder)
    assert [proof.what for proof in found] == PARTS[:-1]
    (bad,) = (proof for proof in found if proof.state == "bad")
    assert bad.what == what
    assert words in bad.found


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_resampler_that_runs_causally_is_found_in_every_dtype(dtype: str) -> None:
    """As transformers 5.17 has it under SDPA."""
    kosmos = load_model(resolve("demo"), "cpu", dtype)
    assert resampler(kosmos).state == "ok"
    kosmos.model.image_to_text_projection.x_attn.is_causal = True
    assert resampler(kosmos).state == "bad"


def test_resampler_runs_on_as_it_did(kosmos: Kosmos) -> None:
    attention = kosmos.model.image_to_text_projection.x_attn
    before = attention.config
    resampler(kosmos)
    assert attention.config is before
    assert kosmos.model.config.text_config._attn_implementation == before._attn_implementation == "sdpa"


# ---- the caption


def test_known_caption_is_held_to_the_letter_in_float32(kosmos: Kosmos) -> None:
    assert caption(kosmos, drawn_shapes(), SHAPES).state == "ok"
    other = caption(kosmos, drawn_shapes(), reword(SHAPES, "_0460>", "_0461>"))
    assert other.state == "bad"
    assert "_0460>" in other.found
    assert "_0461>" in other.found


def test_in_16_bits_a_box_may_lie_a_little_otherwise_and_both_texts_are_told(in_16_bits: Kosmos) -> None:
    assert caption(in_16_bits, drawn_shapes(), SHAPES).state == "ok"
    near = caption(in_16_bits, drawn_shapes(), reword(SHAPES, "_0460>", "_0461>"))
    assert near.state == "note"
    assert near.found.startswith("in bfloat16 it says '<grounding> An image of<phrase> a red square")
    assert "_0460>" in near.found
    assert "_0461>" in near.found


@pytest.mark.parametrize(("old", "new"), [("_0460>", "_0196>"), ("a red square", "a snowman")])
def test_in_16_bits_the_first_phrase_must_have_its_box(in_16_bits: Kosmos, old: str, new: str) -> None:
    assert caption(in_16_bits, drawn_shapes(), reword(SHAPES, old, new)).state == "bad"


def test_published_caption_is_that_of_the_model_card() -> None:
    assert SNOWMAN.grounding.caption == "An image of a snowman warming himself by a fire."
    cells = [(one.phrase, box.first, box.second) for one in SNOWMAN.grounding.entities for box in one.boxes]
    assert cells == [("a snowman", 44, 863), ("a fire", 5, 911)]


def retrain(folder: Path) -> None:
    """Other weights, so that it is the demo model no more."""
    tensors = load_file(folder / "model.safetensors")
    tensors["image_to_text_projection.latent_query"] += 1
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def test_without_the_published_picture_a_note_says_how_to_give_it(folder: Path) -> None:
    retrain(folder)
    last = proofs(folder)[-1]
    assert (last.state, last.what) == ("note", "caption")
    assert "--golden FILE.jpg" in last.found


@pytest.mark.parametrize("place", ["given", "in the folder"])
def test_weights_that_do_not_see_the_published_snowman_are_bad(folder: Path, tmp_path: Path, place: str) -> None:
    retrain(folder)
    picture = tmp_path / "picture.jpg" if place == "given" else folder / "snowman.jpg"
    Image.new("RGB", (640, 480), "white").save(picture)
    last = proofs(folder, picture if place == "given" else None)[-1]
    assert (last.state, last.what) == ("bad", "caption")
    assert SNOWMAN.raw_text in last.found


@pytest.mark.parametrize(("content", "word"), [(None, "not_found"), (b"no picture", "not_an_image")])
def test_picture_that_cannot_be_read_is_told(tmp_path: Path, content: bytes | None, word: str) -> None:
    picture = tmp_path / "snowman.jpg"
    if content:
        picture.write_bytes(content)
    last = proofs("demo", picture)[-1]
    assert last.state == "bad"
    assert word in last.found


def test_published_picture_comes_from_the_hubs_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = "f" * 40
    repository = tmp_path / f"models--{DEFAULT_MODEL.replace('/', '--')}"
    snapshot = repository / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (snapshot / "snowman.jpg").write_bytes(b"a picture")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    assert find_snowman(ModelRef(DEFAULT_MODEL, commit, None, "float32")) == snapshot / "snowman.jpg"
    assert find_snowman(ModelRef("mine", "sha256:0", tmp_path, "float32")) == snapshot / "snowman.jpg"
    assert find_snowman(ModelRef("someone/kosmos-2", commit, None, "float32")) is None
    assert find_snowman(ModelRef(DEFAULT_MODEL, "e" * 40, None, "float32")) is None


def test_resampler_that_computes_no_numbers_is_bad(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors["image_to_text_projection.dense.bias"] += torch.nan
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    assert [proof.state for proof in proofs(folder) if proof.what == "resampler"] == ["bad"]
