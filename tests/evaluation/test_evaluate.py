"""`evaluate` on drawings in each format: the scores are those of transformers and of the COCO API."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from kosmograph.display import counting
from tests.evaluation.conftest import Drawing, hits
from tests.pipeline.conftest import Run, here

Ask = Callable[[Path, str, str], list[list[float]]]
Evaluate = Callable[..., Run]
ANSWERS = "answers.jsonl"


@pytest.fixture
def evaluate(tmp_path: Path, drawings: list[Drawing]) -> Evaluate:
    """`kosmograph evaluate` in this process, on the drawings unless told otherwise."""
    return partial(_evaluate, tmp_path, images(drawings))


def _evaluate(folder: Path, images: Path, name: str, document: Any, dataset: str, *more: str) -> Run:
    (folder / name).write_text(json.dumps(document))
    model = () if "--model" in more else ("--model", "demo")
    where = () if "--images" in more else ("--images", str(images))
    return here(folder, "evaluate", name, "--dataset", dataset, *where, *model, *more)


def images(drawings: list[Drawing]) -> Path:
    return drawings[-1].path.parent


def figures(run: Run) -> dict[tuple[str, str], tuple[int, float]]:
    return {(one["group"], one["measure"]): (one["n"], one["score"]) for one in json.loads(run.out)["scores"]}


def mean(values: list[bool]) -> tuple[int, Any]:
    return len(values), pytest.approx(sum(values) / len(values))


def expressions(drawings: list[Drawing]) -> dict[str, Any]:
    """As MDETR's files for RefCOCO: an image entry for each thing, all over the place."""
    asked = [(one, name, box) for one in drawings for name, boxes in one.things.items() for box in boxes]
    about = [(one, f"the {name}", box) for one, name, box in asked[::2] + asked[1::2]]
    return {
        "images": [
            {
                "id": n,
                "file_name": one.path.name,
                "width": one.size[0],
                "height": one.size[1],
                "caption": said,
                "dataset_name": "refcoco",
            }
            for n, (one, said, _) in enumerate(about)
        ],
        "annotations": [{"image_id": n, "bbox": box} for n, (*_, box) in enumerate(about)],
    }


def instances(drawings: list[Drawing]) -> dict[str, Any]:
    """As COCO's instances; what no drawing has is a category as well."""
    names = sorted({name for one in drawings for name in one.things} | {"black cross", "white ring"})
    return {
        "images": [
            {"id": n, "file_name": one.path.name, "width": one.size[0], "height": one.size[1]}
            for n, one in enumerate(drawings)
        ],
        "categories": [{"id": n, "name": f"the {name}"} for n, name in enumerate(names)],
        "annotations": [
            {"image_id": n, "category_id": names.index(name), "bbox": box}
            for n, one in enumerate(drawings)
            for name, boxes in one.things.items()
            for box in boxes
        ],
    }


def sentences(drawings: list[Drawing], folder: Path) -> dict[str, Any]:
    """As MDETR's files for Flickr30k, with the folder of Flickr30k Entities written beside."""
    entries = []
    for part in ("Annotations", "Sentences"):
        (folder / part).mkdir(parents=True)
    for n, one in enumerate(drawings):
        names = [f"a {name}" for name in one.things]
        tagged = " and ".join(f"[/EN#{k}/other/{name.split()[-1]} {name}]" for k, name in enumerate(names))
        (folder / "Sentences" / f"{n}.txt").write_text(f"Nothing .\nAn image of {tagged} .\n")
        boxes = [(k, box) for k, name in enumerate(one.things) for box in one.things[name]]
        (folder / "Annotations" / f"{n}.xml").write_text(
            f"<annotation>{''.join(xml(*box) for box in boxes)}</annotation>"
        )
        caption = f"An image of {' and '.join(names)} ."
        spans = [[[caption.index(name), caption.index(name) + len(name)]] for name in names]
        about = {"id": n, "file_name": one.path.name, "width": one.size[0], "height": one.size[1], "caption": caption}
        entries.append(about | {"original_img_id": n, "sentence_id": 1, "tokens_positive_eval": spans})
    return {"images": entries, "annotations": []}


def xml(number: int, box: list[float]) -> str:
    x, y, width, height = box
    corners = {"xmin": x, "ymin": y, "xmax": x + width, "ymax": y + height}
    inner = "".join(f"<{name}>{round(value)}</{name}>" for name, value in corners.items())
    return f"<object><name>{number}</name><bndbox>{inner}</bndbox></object>"


def test_refcoco_scores_the_first_box_and_all_of_them(evaluate: Evaluate, drawings: list[Drawing], ask: Ask) -> None:
    run = evaluate("finetune_refcoco_val.json", expressions(drawings), "refcoco", "--json")
    assert run.code == 0, run.err
    first, every = [], []
    for one in drawings:
        for name, boxes in one.things.items():
            found = ask(one.path, f"<grounding><phrase>the {name}</phrase>", f"the {name}")
            first += [hits(found[:1], [box]) for box in boxes]
            every += [hits(found, [box]) for box in boxes]
    assert figures(run) == {("refcoco", "accuracy"): mean(first), ("refcoco", "upper_bound"): mean(every)}
    assert 0.3 < sum(first) / len(first) <= sum(every) / len(every)  # else it would say little
    assert [one.get("paper") for one in json.loads(run.out)["scores"]] == [0.5232, None]


def test_coco_scores_what_is_there_and_what_is_not(evaluate: Evaluate, drawings: list[Drawing], ask: Ask) -> None:
    run = evaluate("instances.json", instances(drawings), "coco-json", "--json", "--out", ANSWERS)
    assert run.code == 0, run.err
    first = [
        hits(ask(one.path, f"<grounding><phrase>the {name}</phrase>", f"the {name}")[:1], boxes)
        for one in drawings
        for name, boxes in one.things.items()
    ]
    found = figures(run)
    assert found["all", "R@1"] == mean(first)
    assert found["all", "absent_unanswered"][0] == len(drawings)
    assert {group for group, _ in found} == {"all"} | {f"the {name}" for one in drawings for name in one.things}


def test_predictions_have_every_prompt_with_its_answer_and_verdict(
    evaluate: Evaluate, drawings: list[Drawing], ask: Ask, tmp_path: Path
) -> None:
    run = evaluate("instances.json", instances(drawings), "coco-json", "--json", "--out", ANSWERS)
    lines = [json.loads(line) for line in (tmp_path / ANSWERS).read_text().splitlines()]
    paths = {one.path.name: one for one in drawings}
    assert len(lines) == json.loads(run.out)["prompts"] == sum(len(one.things) + 1 for one in drawings)
    for line in lines:
        one = paths[line["image"]]
        phrase = line["prompt"].split("<phrase>")[1].removesuffix("</phrase>")
        boxes = ask(one.path, line["prompt"], phrase)
        width, height = one.size
        drawn = [[x1 * width, y1 * height, (x2 - x1) * width, (y2 - y1) * height] for x1, y1, x2, y2 in line["boxes"]]
        assert drawn == [pytest.approx(box) for box in boxes]
        truth = one.things.get(phrase.removeprefix("the "), [])
        assert line["right"] == (hits(boxes[:1], truth) if truth else not boxes)
        assert bool(line["truth"]) == bool(truth)
    absent = [line for line in lines if not line["truth"]]
    assert figures(run)["all", "absent_unanswered"] == mean([line["right"] for line in absent])


def test_flickr30k_scores_phrases_in_their_sentences_by_type(
    evaluate: Evaluate, drawings: list[Drawing], ask: Ask, tmp_path: Path
) -> None:
    document = sentences(drawings, tmp_path / "entities")
    run = evaluate(
        "final_flickr_separateGT_test.json", document, "flickr30k", "--json", "--entities", str(tmp_path / "entities")
    )
    assert run.code == 0, run.err
    right: dict[str, list[bool]] = {}
    for one, entry in zip(drawings, document["images"], strict=True):
        for name, boxes in one.things.items():
            before = entry["caption"][: entry["caption"].index(f"a {name}")]
            found = ask(one.path, f"<grounding>{before} <phrase>a {name}</phrase>", f"a {name}")
            for group in ("all", "other", name.split()[-1]):
                right.setdefault(group, []).append(hits(found[:1], boxes))
    found_figures = figures(run)
    assert {group: found_figures[group, "R@1"] for group in right} == {g: mean(one) for g, one in right.items()}
    assert {measure for _, measure in found_figures} == {"R@1", "R@5", "R@10"}
    assert all(found_figures[g, "R@1"][1] <= found_figures[g, "R@5"][1] <= found_figures[g, "R@10"][1] for g in right)
    papers = {(one["group"], one["measure"]): one.get("paper") for one in json.loads(run.out)["scores"]}
    assert (papers["all", "R@1"], papers["all", "R@10"], papers["other", "R@1"]) == (0.787, 0.801, 0.651)


def test_table_has_the_papers_figure_beside_ours(evaluate: Evaluate, drawings: list[Drawing]) -> None:
    run = evaluate("finetune_refcoco_testB.json", expressions(drawings), "refcoco", "--limit", "2")
    header, *rows = (line.split() for line in run.out.splitlines() if line.strip() and "─" not in line)
    assert header == ["refcoco", "measure", "n", "right", "paper"]
    assert [row[:2] for row in rows[:2]] == [["refcoco", "accuracy"], ["refcoco", "upper_bound"]]
    assert rows[0][4] == "0.4726"
    assert "2 images" in run.out


def test_images_that_cannot_be_read_are_named_and_left_out_of_the_mean(
    evaluate: Evaluate, drawings: list[Drawing], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(images(drawings), tmp_path / "images"))
    gone, broken, other, outside = (folder / one.path.name for one in drawings[4:])
    gone.unlink()
    broken.write_bytes(b"no picture")
    Image.new("RGB", (50, 400)).save(other)
    outside.unlink()
    outside.symlink_to(drawings[-1].path)
    run = evaluate("instances.json", instances(drawings), "coco-json", "--json", "--images", str(folder))
    whole = evaluate("instances.json", instances(drawings[:4]), "coco-json", "--json")
    assert run.code == 3
    document = json.loads(run.out)
    assert (document["images"], document["unreadable"]) == (4, 4)
    assert figures(run)["all", "R@1"] == figures(whole)["all", "R@1"]
    lines = run.err.splitlines()
    for path, word in ((gone, "not_found"), (broken, "not_an_image"), (other, "50×400"), (outside, "access_denied")):
        assert any(f"{path.name}: " in line and word in line for line in lines), run.err


def test_file_name_that_leads_out_of_the_folder_is_not_read(evaluate: Evaluate, drawings: list[Drawing]) -> None:
    document = instances(drawings[:5])
    document["images"][4]["file_name"] = f"../{drawings[4].path.name}"
    inner = images(drawings) / "train2014"
    run = evaluate("instances.json", document, "coco-json", "--json", "--images", str(inner))
    assert run.code == 3
    assert "access_denied" in run.err
    assert json.loads(run.out)["images"] == 4


def test_images_that_all_fail_end_the_run_before_they_fill_the_screen(
    evaluate: Evaluate, drawings: list[Drawing], tmp_path: Path
) -> None:
    (tmp_path / "elsewhere").mkdir()
    document = instances([replace(drawings[0], path=tmp_path / f"{n}.png") for n in range(150)])
    run = evaluate("instances.json", document, "coco-json", "--images", "elsewhere", "--out", ANSWERS)
    assert run.code == 1
    assert len(run.err.splitlines()) == 101
    assert run.err.splitlines()[-1].startswith("kosmograph: 100 images in a row could not be read: see that --images")
    assert not (tmp_path / ANSWERS).exists()


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--images", "nowhere"), "nowhere is no folder"),
        (("--out", "nowhere/answers.jsonl"), "give --out another place"),
        (("--model", "./nowhere"), "nowhere"),
    ],
)
def test_what_cannot_be_is_told_in_one_line(
    evaluate: Evaluate, drawings: list[Drawing], more: tuple[str, ...], words: str
) -> None:
    run = evaluate("instances.json", instances(drawings), "coco-json", *more)
    assert run.code == 1
    assert words in run.err
    assert len(run.err.splitlines()) == 1


def test_prompts_of_an_image_share_one_look_at_it(drawings: list[Drawing]) -> None:
    from kosmograph.evaluation.answers import outcomes
    from kosmograph.evaluation.questions import Picture, Question
    from schemas.settings import Settings
    from schemas.storage import StorageOptions
    from schemas.uris import file_uri
    from worker.images import Limits
    from worker.loader import Loader
    from worker.revision import resolve
    from worker.service import load_engine

    settings = Settings(device="cpu", slots=4)
    engine, _ = load_engine(resolve("demo"), settings)
    asked = [
        Picture(str(one.path), *one.size, tuple(Question(f"<grounding><phrase>{n}</phrase>", (), ()) for n in range(6)))
        for one in drawings
    ]
    with engine, Loader(Limits.from_settings(settings), 1, StorageOptions.of(settings)) as loader:
        found = list(outcomes(asked, lambda one: loader.load(file_uri(one.name)), engine, 16))
        assert [outcome.picture for outcome in found] == asked
        assert [len(outcome.answers) for outcome in found] == [6] * len(asked)
        assert (engine.figures.generations, engine.figures.images) == (6 * len(asked), len(asked))


def test_ctrl_c_ends_with_130_and_leaves_no_file(
    drawings: list[Drawing], tmp_path: Path, wait_for: Callable[..., Any]
) -> None:
    many = [Drawing(tmp_path / f"{n}.png", drawings[4].size, drawings[4].things) for n in range(1500)]
    for one in many:
        shutil.copy(drawings[4].path, one.path)
    (tmp_path / "instances.json").write_text(json.dumps(instances(many)))
    command = ["evaluate", "instances.json", "--dataset", "coco-json", "--images", ".", "--model", "demo"]
    hears = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"  # a job in the background has it off
    )
    process = subprocess.Popen(
        [
            sys.executable,
            "-P",
            "-c",
            f"{hears}; from kosmograph.__main__ import main; main()",
            *command,
            "--out",
            ANSWERS,
        ],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    wait_for(lambda: any(draft.stat().st_size for draft in tmp_path.glob(f".{ANSWERS}.*")), 60)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert out == ""
    assert err.splitlines()[-1].startswith("kosmograph: interrupted")
    assert "Traceback" not in err
    assert not [path.name for path in tmp_path.iterdir() if ANSWERS in path.name]


def test_progress_is_told_line_by_line_where_there_is_no_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kosmograph.display.LINE_EVERY_S", 0.0)
    with counting("evaluating", 5, "images") as one_more:
        for _ in range(5):
            one_more()
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(",")[0] for line in lines] == [f"evaluating: {n} of 5 images" for n in range(1, 5)]
    assert all(line.endswith(" left") for line in lines)
