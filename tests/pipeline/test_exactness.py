"""With `--exact` and float32 the pipeline says what the plain transformers loop says, word for word and box for box."""

from pathlib import Path

import torch
from PIL import Image, ImageOps
from transformers import AutoProcessor, Kosmos2ForConditionalGeneration

from schemas.recipes import MAX_NEW_TOKENS, prompt_for

ROOT = Path(__file__).parents[2]
PROMPTS = {
    "brief": prompt_for("brief"),
    "detailed": prompt_for("detailed"),
    "phrase": prompt_for("phrase", "a red circle"),
}


def plain_loop(path: Path, task: str) -> tuple[str, list[tuple[str, tuple[int, int], list[tuple[float, ...]]]]]:
    """Caption and entities of one picture by transformers alone, as its documentation does it."""
    processor = AutoProcessor.from_pretrained(ROOT / "worker/demo")
    model = Kosmos2ForConditionalGeneration.from_pretrained(ROOT / "worker/demo", dtype=torch.float32).eval()
    with Image.open(path) as stored:
        image = ImageOps.exif_transpose(stored).convert("RGB")
    inputs = processor(text=PROMPTS[task], images=image, return_tensors="pt")
    ids = model.generate(
        **inputs, use_cache=True, do_sample=False, max_new_tokens=MAX_NEW_TOKENS[task], eos_token_id=2, pad_token_id=1
    )
    text = processor.batch_decode(ids, skip_special_tokens=True)[0]
    return processor.post_process_generation(text)


def test_annotations_are_those_of_the_plain_loop(kosmograph) -> None:
    examples = [
        path for path in sorted((ROOT / "examples/images").iterdir()) if path.suffix in (".jpg", ".png", ".bmp")
    ]
    opaque = [path for path in examples if Image.open(path).mode in ("RGB", "L")]
    assert len(opaque) >= 8
    options = ("--task", "brief", "--task", "detailed", "--phrase", "a red circle")
    run = kosmograph.annotate(*map(str, opaque), "--model", "demo", "--exact", *options)
    assert run.code == 0, run.err
    for path in opaque:
        for task in PROMPTS:
            expected_caption, expected = plain_loop(path, task)
            where = f"uri LIKE '%/{path.name}' AND task = '{task}'"
            assert kosmograph.value(f"SELECT caption FROM captions WHERE {where}") == expected_caption
            rows = kosmograph.sql(f"SELECT * FROM groundings WHERE {where} ORDER BY entity, box")
            found = [
                (r["phrase"], (r["span_start"], r["span_end"]), (r["x1"], r["y1"], r["x2"], r["y2"])) for r in rows
            ]
            assert found == [(phrase, span, tuple(box)) for phrase, span, boxes in expected for box in boxes]
