"""`annotate` from a folder of images to rows in SQL."""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import skimage
from PIL import Image

from schemas.uris import path_of
from tests.pipeline.conftest import Kosmograph, Run, jpeg

EXAMPLES = Path(__file__).parents[2] / "examples" / "images"
POSTCARD = str(EXAMPLES / "postcard.jpg")
PHOTOGRAPHS = [
    path
    for path in sorted((Path(skimage.__file__).parent / "data").iterdir())
    if path.suffix in (".png", ".jpg", ".gif")
]


@dataclass(frozen=True)
class Done:
    """A run that is over, where it was, and of what."""

    kosmograph: Kosmograph
    run: Run


@dataclass(frozen=True)
class Grown(Done):
    """The second of two runs, its folder, and the newest annotation before it."""

    photos: Path
    before: int


@dataclass(frozen=True)
class Odd(Done):
    """One with a temporary folder of its own."""

    temporary: Path


# ---- the demo model on the drawings, and on photographs


@pytest.fixture(scope="module")
def drawings(new_kosmograph: Callable[[], Kosmograph]) -> Done:
    """The drawings and the photographs that scikit-image ships, annotated by the demo model."""
    kosmograph = new_kosmograph()
    sources = (str(EXAMPLES), *map(str, PHOTOGRAPHS))
    return Done(kosmograph, kosmograph.annotate(*sources, "--model", "demo", "--job", "drawings"))


def test_folder_becomes_captions_and_boxes(drawings: Done) -> None:
    """Given the drawings, when they are annotated by the demo model, then SQL has captions and boxes for each."""
    kosmograph, run = drawings.kosmograph, drawings.run
    assert run.code == 0, run.err
    images = 16 + len(PHOTOGRAPHS)
    assert f"drawings: {images} images, {images} annotated, 0 reused, 0 failed" in run.out
    query = f"SELECT * FROM captions WHERE job = 'drawings' AND uri LIKE '{EXAMPLES.as_uri()}/%'"
    captions = json.loads(kosmograph("sql", query, "--format", "json").out)
    assert len(captions) == 16
    assert all(row["caption"].startswith("An image of a") for row in captions)
    assert {row["model"] for row in captions} == {"demo"}
    boxes = kosmograph.sql(f"SELECT * FROM groundings WHERE uri LIKE '{EXAMPLES.as_uri()}/%'")
    assert len(boxes) >= 16
    for box in boxes:
        assert box["caption"][box["span_start"] : box["span_end"]] == box["phrase"]
        assert 0 < box["score"] <= 1
        assert 0 < box["phrase_score"] <= 1
        assert box["valid"]


def test_sizes_are_upright(drawings: Done) -> None:
    with Image.open(EXAMPLES / "upright.jpg") as stored:
        assert stored.getexif()[0x0112] in (5, 6, 7, 8)
        turned = stored.size[::-1]
    row = drawings.kosmograph.sql("SELECT width, height FROM captions WHERE uri LIKE '%/upright.jpg'")[0]
    assert (row["width"], row["height"]) == turned


def test_real_photographs_go_through(drawings: Done) -> None:
    """They end as captions with their own sizes."""
    assert len(PHOTOGRAPHS) > 20
    assert drawings.run.code == 0, drawings.run.err + drawings.run.out
    rows = drawings.kosmograph.sql("SELECT uri, width, height FROM captions")
    sizes = {row["uri"].rpartition("/")[2]: (row["width"], row["height"]) for row in rows}
    for path in PHOTOGRAPHS:
        with Image.open(path) as image:
            assert sizes[path.name] == image.size


def test_show_draws_the_boxes(drawings: Done) -> None:
    run = drawings.kosmograph("show", POSTCARD, "--save", "out.png")
    assert run.code == 0, run.err
    assert "An image of" in run.out
    with Image.open(drawings.kosmograph.folder / "out.png") as drawn:
        assert drawn.width >= 480


def test_decoding_options_are_part_of_the_recipe(kosmograph) -> None:
    """Given options for the decoding, when a picture is annotated, then its recipe has them, and is another recipe."""
    assert kosmograph("submit", POSTCARD, "--model", "demo").code == 0
    options = ("--constrained", "--no-repeat-ngram-size", "3", "--max-new-tokens", "40", "--min-new-tokens", "2")
    run = kosmograph.annotate(POSTCARD, "--model", "demo", *options, "--task", "brief", "--phrase", "a circle")
    assert run.code == 0, run.err
    assert "1 images, 2 annotated, 0 reused, 0 failed" in run.out
    plain, *specs = [json.loads(row["spec"]) for row in kosmograph.sql("SELECT spec FROM recipes ORDER BY id")]
    added = {"constrained": True, "no_repeat_ngram_size": 3, "max_new_tokens": 40, "min_new_tokens": 2}
    assert (len(specs), specs[0]) == (2, plain | added)
    assert added.items() <= specs[1].items()


def test_try_answers_several_prompts_without_a_database(kosmograph) -> None:
    prompts = ("--task", "brief", "--phrase", "a circle")
    run = kosmograph("try", POSTCARD, "--model", "null", *prompts, "--save", "t.png")
    assert run.code == 0, run.err
    assert run.out.count("saved ") == 2
    assert (kosmograph.folder / "t.png").exists()
    assert (kosmograph.folder / "t-2.png").exists()
    assert not list(kosmograph.folder.glob("*.db"))


# ---- the null model: what is done, and what is not done again


def test_folder_becomes_captions_in_either_database(kosmograph, many, database_url: str) -> None:
    run = kosmograph.annotate(str(many(70)), "--job", "all", "--db", database_url)
    assert run.code == 0, run.err
    status = json.loads(kosmograph("status", "all", "--json", "--db", database_url).out)[0]
    assert (status["state"], status["annotated"], status["pending"]) == ("finished", 70, 0)
    again = kosmograph.annotate(str(many(70)), "--job", "again", "--db", database_url)
    assert "again: 70 images, 0 annotated, 70 reused, 0 failed" in again.out


@pytest.fixture(scope="module")
def grown(new_kosmograph: Callable[[], Kosmograph], tmp_path_factory: pytest.TempPathFactory) -> Grown:
    """A folder of 25 that was annotated, and again with ten more, one under a second name, and one changed."""
    kosmograph, photos = new_kosmograph(), tmp_path_factory.mktemp("photos")
    for number in range(25):
        (photos / f"{number:02}.jpg").write_bytes(jpeg(number))
    first = kosmograph.annotate(str(photos))
    assert first.code == 0, first.err
    assert "25 images, 25 annotated, 0 reused, 0 failed" in first.out
    before = kosmograph.value("SELECT MAX(id) FROM annotations")
    for number in range(25, 35):
        (photos / f"{number:02}.jpg").write_bytes(jpeg(number))
    (photos / "copy.jpg").write_bytes(jpeg(1))
    (photos / "00.jpg").write_bytes(jpeg(1000, (120, 80)))
    return Grown(kosmograph, kosmograph.annotate(str(photos)), photos, before)


def test_new_images_alone_are_annotated(grown: Grown) -> None:
    assert grown.run.code == 0, grown.run.err
    assert "37 images, 35 annotated, 2 reused, 0 failed\n  new:       12, of which 0 failed\n" in grown.run.out
    new = grown.kosmograph.sql(f"SELECT uri FROM captions WHERE annotation_id > {grown.before}")
    assert {path_of(row["uri"]).name for row in new} == {"00.jpg", *(f"{number}.jpg" for number in range(25, 35))}
    assert grown.kosmograph.value(f"SELECT COUNT(*) FROM annotations WHERE id > {grown.before}") == 11


def test_same_bytes_under_another_name_reuse_the_annotation(grown: Grown) -> None:
    names = "uri LIKE '%/01.jpg' OR uri LIKE '%/copy.jpg'"
    assert grown.kosmograph.value(f"SELECT COUNT(DISTINCT uri) FROM captions WHERE {names}") == 2
    assert grown.kosmograph.value(f"SELECT COUNT(DISTINCT annotation_id) FROM captions WHERE {names}") == 1


def test_changed_image_is_annotated_anew(grown: Grown) -> None:
    """The job shows the version that it read last; the earlier mention of the name counts as reused."""
    rows = grown.kosmograph.sql("SELECT width FROM captions WHERE uri LIKE '%/00.jpg' AND job <> 'again'")
    assert [row["width"] for row in rows] == [120]


def test_second_run_does_nothing(grown: Grown) -> None:
    """The same command again starts no worker, computes nothing, and says so."""
    kosmograph = grown.kosmograph
    before = kosmograph.sql("SELECT * FROM annotations ORDER BY id")
    again = kosmograph.annotate(str(grown.photos), KOSMOGRAPH_DEVICE="none, so that a worker would fail")
    assert again.code == 0, again.err
    assert kosmograph.sql("SELECT * FROM annotations ORDER BY id") == before
    assert "37 images, 35 annotated, 2 reused, 0 failed\n  nothing was new\n" in again.out


def test_another_job_reuses_without_a_worker(grown: Grown) -> None:
    """What is annotated is settled with the listing: no chunk travels."""
    nobody = "none, so that a worker would fail"
    run = grown.kosmograph.annotate(str(grown.photos), "--job", "again", KOSMOGRAPH_DEVICE=nobody)
    assert run.code == 0, run.err
    assert "again: 36 images, 0 annotated, 36 reused" in run.out


def test_job_with_other_recipes_is_refused_with_a_hint(grown: Grown) -> None:
    job = grown.kosmograph.value("SELECT job FROM progress WHERE images = 37")
    run = grown.kosmograph.annotate(str(grown.photos), "--job", job, "--task", "detailed")
    assert run.code == 2
    assert "--job" in run.err
    assert len(run.err.strip().splitlines()) == 1


# ---- odd surroundings


ODD_NAMES = {
    "with space.jpg", "new\nline.jpg", "plus+plus.jpg", "per%20cent.jpg", "ha#sh?.jpg", "quote'\".jpg",
    "\u00e9 composed.jpg", "e\u0301 decomposed.jpg", "\U0001f600.jpg", "x" * 251 + ".jpg", "back\\slash.jpg",
    os.fsdecode(b"latin-\xe9.jpg"),
}  # fmt: skip


@pytest.fixture(scope="module")
def odd(new_kosmograph: Callable[[], Kosmograph], tmp_path_factory: pytest.TempPathFactory) -> Odd:
    """A run whose pictures, temporary folder and working directory have names that are traps."""
    kosmograph, photos = new_kosmograph(), tmp_path_factory.mktemp("photos")
    for name in ("worker.py", "schemas.py", "producer.py", "catalog.py", "celery.py", "kosmograph.py"):
        (kosmograph.folder / name).write_text("raise RuntimeError('the wrong module')")
    for number, name in enumerate(sorted(ODD_NAMES)):
        (photos / name).write_bytes(jpeg(number))
    temporary = tmp_path_factory.mktemp("odd") / ("per%20cent ha#sh que?st " + "long" * 20)
    temporary.mkdir()
    environment = {"TMPDIR": str(temporary), "KOSMOGRAPH_DB": "sqlite:///other.db"}
    run = kosmograph.annotate(str(photos), "--db", "sqlite:///kosmograph.db", **environment)
    return Odd(kosmograph, run, temporary)


def test_hostile_names_on_disk_arrive_whole(odd: Odd) -> None:
    """Each name ends as one caption, under a URI that names the file again."""
    assert odd.run.code == 0, odd.run.err
    found = [path_of(row["uri"]).name for row in odd.kosmograph.sql("SELECT uri FROM captions")]
    assert len(found) == len(ODD_NAMES)
    assert set(found) == ODD_NAMES


def test_odd_temporary_folder_is_no_trouble(odd: Odd) -> None:
    assert odd.run.code == 0, odd.run.err
    assert not list(odd.temporary.iterdir())


def test_modules_of_the_users_folder_are_left_alone(odd: Odd) -> None:
    assert (odd.kosmograph.folder / "worker.py").exists()
    assert odd.run.code == 0, odd.run.err


def test_flag_counts_in_the_workers_too(odd: Odd) -> None:
    """The environment names another database: the worker that `annotate` starts uses the flag's, as `annotate` does."""
    assert odd.run.code == 0, odd.run.err
    assert f"{len(ODD_NAMES)} images, {len(ODD_NAMES)} annotated" in odd.run.out
    assert not (odd.kosmograph.folder / "other.db").exists()


# ---- standard input, and several prompts


def test_standard_input_is_kept_until_it_is_listed_and_several_prompts_share_a_run(kosmograph, many) -> None:
    names = "\n".join(map(str, sorted(many(5).iterdir())))
    prompts = ("--task", "brief", "--phrase", "a red circle", "--question", "What is it?")
    run = kosmograph.annotate("-", "--root", str(many(5)), *prompts, input=names)
    assert run.code == 0, run.err
    assert "5 images, 15 annotated" in run.out
    tasks = kosmograph.sql("SELECT task, COUNT(*) AS n FROM captions GROUP BY task ORDER BY task")
    assert [(row["task"], row["n"]) for row in tasks] == [("brief", 5), ("phrase", 5), ("question", 5)]
    assert not list(kosmograph.folder.glob("stdin-*"))
