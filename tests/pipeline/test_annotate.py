"""`annotate` from a folder of images to rows in SQL."""

import json
from pathlib import Path

import pytest
from PIL import Image


def test_folder_becomes_captions_and_boxes(kosmograph, examples: Path) -> None:
    """Given the drawings, when they are annotated by the demo model, then SQL has captions and boxes for each."""
    run = kosmograph.annotate(str(examples), "--model", "demo", "--job", "drawings")
    assert run.code == 0, run.err
    assert "drawings: 16 images, 16 annotated, 0 reused, 0 failed" in run.out
    captions = kosmograph.sql("SELECT * FROM captions WHERE job = 'drawings'")
    assert len(captions) == 16
    assert all(row["caption"].startswith("An image of a") for row in captions)
    assert {row["model"] for row in captions} == {"demo"}
    boxes = kosmograph.sql("SELECT * FROM groundings")
    assert len(boxes) >= 16
    for box in boxes:
        assert box["caption"][box["span_start"] : box["span_end"]] == box["phrase"]
        assert 0 < box["score"] <= 1
        assert 0 < box["phrase_score"] <= 1
        assert box["valid"]


def test_sizes_are_upright(kosmograph, examples: Path) -> None:
    kosmograph.annotate(str(examples / "upright.jpg"))
    with Image.open(examples / "upright.jpg") as stored:
        assert stored.getexif()[0x0112] in (5, 6, 7, 8)
        turned = stored.size[::-1]
    row = kosmograph.sql("SELECT width, height FROM captions")[0]
    assert (row["width"], row["height"]) == turned


def test_folder_becomes_captions_in_either_database(kosmograph, many, database_url: str) -> None:
    run = kosmograph.annotate(str(many(70)), "--job", "all", "--db", database_url)
    assert run.code == 0, run.err
    status = json.loads(kosmograph("status", "all", "--json", "--db", database_url).out)[0]
    assert (status["state"], status["annotated"], status["pending"]) == ("finished", 70, 0)
    again = kosmograph.annotate(str(many(70)), "--job", "again", "--db", database_url)
    assert "again: 70 images, 0 annotated, 70 reused, 0 failed" in again.out


def test_flag_counts_in_the_workers_too(kosmograph, many) -> None:
    """The environment names another database: the worker that `annotate` starts uses the flag's, as `annotate` does."""
    here = ("--db", "sqlite:///kosmograph.db")
    run = kosmograph.annotate(str(many(3)), *here, KOSMOGRAPH_DB="sqlite:///other.db")
    assert run.code == 0, run.err
    assert "3 images, 3 annotated" in run.out
    assert not (kosmograph.folder / "other.db").exists()


def test_odd_temporary_folder_is_no_trouble(kosmograph, many, tmp_path: Path) -> None:
    folder = tmp_path / ("per%20cent ha#sh que?st " + "long" * 20)
    folder.mkdir()
    run = kosmograph.annotate(str(many(3)), TMPDIR=str(folder))
    assert run.code == 0, run.err
    assert not list(folder.iterdir())


def test_second_run_does_nothing(kosmograph, many) -> None:
    """The same command again starts no worker, computes nothing, and says so."""
    folder = str(many(30))
    first = kosmograph.annotate(folder)
    assert first.code == 0, first.err
    before = kosmograph.sql("SELECT * FROM annotations ORDER BY id")
    again = kosmograph.annotate(folder, KOSMOGRAPH_DEVICE="none, so that a worker would fail")
    assert again.code == 0, again.err
    assert kosmograph.sql("SELECT * FROM annotations ORDER BY id") == before
    assert "30 images, 30 annotated, 0 reused, 0 failed" in again.out


def test_new_images_alone_are_annotated(kosmograph, many) -> None:
    kosmograph.annotate(str(many(25)))
    before = kosmograph.value("SELECT MAX(id) FROM annotations")
    run = kosmograph.annotate(str(many(35)))
    assert "35 images, 35 annotated" in run.out
    assert kosmograph.value(f"SELECT COUNT(*) FROM annotations WHERE id > {before}") == 10


def test_same_bytes_under_another_name_reuse_the_annotation(kosmograph, photos, picture) -> None:
    (photos / "one.jpg").write_bytes(picture(1))
    kosmograph.annotate(str(photos))
    (photos / "two.jpg").write_bytes(picture(1))
    run = kosmograph.annotate(str(photos))
    assert "2 images, 1 annotated, 1 reused" in run.out
    assert kosmograph.value("SELECT COUNT(*) FROM annotations") == 1
    assert kosmograph.value("SELECT COUNT(DISTINCT uri) FROM captions") == 2


def test_another_job_reuses_without_a_worker(kosmograph, many) -> None:
    """What is annotated is settled with the listing: no chunk travels."""
    folder = str(many(20))
    kosmograph.annotate(folder)
    run = kosmograph.annotate(folder, "--job", "again", KOSMOGRAPH_DEVICE="none, so that a worker would fail")
    assert run.code == 0, run.err
    assert "again: 20 images, 0 annotated, 20 reused" in run.out


def test_changed_image_is_annotated_anew(kosmograph, photos, picture) -> None:
    """The job shows the version that it read last; the earlier mention of the name counts as reused."""
    (photos / "one.jpg").write_bytes(picture(1))
    kosmograph.annotate(str(photos))
    (photos / "one.jpg").write_bytes(picture(2, (120, 80)))
    run = kosmograph.annotate(str(photos))
    assert "2 images, 1 annotated, 1 reused, 0 failed" in run.out
    assert [row["width"] for row in kosmograph.sql("SELECT width FROM captions")] == [120]


def test_several_prompts_share_a_run(kosmograph, many) -> None:
    run = kosmograph.annotate(str(many(5)), "--task", "brief", "--phrase", "a red circle", "--question", "What is it?")
    assert "5 images, 15 annotated" in run.out
    tasks = kosmograph.sql("SELECT task, COUNT(*) AS n FROM captions GROUP BY task ORDER BY task")
    assert [(row["task"], row["n"]) for row in tasks] == [("brief", 5), ("phrase", 5), ("question", 5)]


def test_decoding_options_are_part_of_the_recipe(kosmograph, examples: Path) -> None:
    """Given options for the decoding, when a picture is annotated, then its recipe has them, and is another recipe."""
    picture = str(examples / "postcard.jpg")
    kosmograph.annotate(picture, "--model", "demo")
    options = ("--constrained", "--no-repeat-ngram-size", "3", "--max-new-tokens", "40", "--min-new-tokens", "2")
    run = kosmograph.annotate(picture, "--model", "demo", *options, "--task", "brief", "--phrase", "a circle")
    assert run.code == 0, run.err
    assert "1 images, 2 annotated, 0 reused, 0 failed" in run.out
    plain, *specs = [json.loads(row["spec"]) for row in kosmograph.sql("SELECT spec FROM recipes ORDER BY id")]
    added = {"constrained": True, "no_repeat_ngram_size": 3, "max_new_tokens": 40, "min_new_tokens": 2}
    assert (len(specs), specs[0]) == (2, plain | added)
    assert added.items() <= specs[1].items()


def test_job_with_other_recipes_is_refused_with_a_hint(kosmograph, many) -> None:
    folder = str(many(2))
    kosmograph.annotate(folder, "--job", "mine")
    run = kosmograph.annotate(folder, "--job", "mine", "--task", "detailed")
    assert run.code == 2
    assert "--job" in run.err
    assert len(run.err.strip().splitlines()) == 1


def test_modules_of_the_users_folder_are_left_alone(kosmograph, many) -> None:
    for name in ("worker.py", "schemas.py", "producer.py", "catalog.py", "celery.py", "kosmograph.py"):
        (kosmograph.folder / name).write_text("raise RuntimeError('the wrong module')")
    run = kosmograph.annotate(str(many(3)))
    assert run.code == 0, run.err


def test_hostile_names_on_disk_arrive_whole(kosmograph, photos, picture) -> None:
    """Each name ends as one caption, under a URI that names the file again."""
    names = [
        "with space.jpg", "new\nline.jpg", "plus+plus.jpg", "per%20cent.jpg", "ha#sh?.jpg", "quote'\".jpg",
        "\u00e9 composed.jpg", "e\u0301 decomposed.jpg", "\U0001f600.jpg", "x" * 251 + ".jpg", "back\\slash.jpg",
    ]  # fmt: skip
    for number, name in enumerate(names):
        (photos / name).write_bytes(picture(number))
    (Path(str(photos)) / b"latin-\xe9.jpg".decode("utf-8", "surrogateescape")).write_bytes(picture(99))
    run = kosmograph.annotate(str(photos))
    assert run.code == 0, run.err
    from schemas.uris import path_of

    found = {path_of(row["uri"]).name for row in kosmograph.sql("SELECT uri FROM captions")}
    assert found == {*names, b"latin-\xe9.jpg".decode("utf-8", "surrogateescape")}


def test_real_photographs_go_through(kosmograph) -> None:
    """The photographs that scikit-image ships end as captions with their own sizes."""
    import skimage

    folder = Path(skimage.__file__).parent / "data"
    pictures = [path for path in sorted(folder.iterdir()) if path.suffix in (".png", ".jpg", ".gif")]
    assert len(pictures) > 20
    run = kosmograph.annotate(*map(str, pictures), "--model", "demo")
    assert run.code == 0, run.err + run.out
    rows = kosmograph.sql("SELECT uri, width, height FROM captions")
    sizes = {row["uri"].rpartition("/")[2]: (row["width"], row["height"]) for row in rows}
    for path in pictures:
        with Image.open(path) as image:
            assert sizes[path.name] == image.size


def test_show_draws_the_boxes(kosmograph, examples: Path) -> None:
    picture = examples / "postcard.jpg"
    kosmograph.annotate(str(picture), "--model", "demo")
    run = kosmograph("show", str(picture), "--save", "out.png")
    assert run.code == 0, run.err
    assert "An image of" in run.out
    with Image.open(kosmograph.folder / "out.png") as drawn:
        assert drawn.width >= 480


def test_try_answers_several_prompts_without_a_database(kosmograph, examples: Path) -> None:
    prompts = ("--task", "brief", "--phrase", "a circle")
    run = kosmograph("try", str(examples / "postcard.jpg"), "--model", "demo", *prompts, "--save", "t.png")
    assert run.code == 0, run.err
    assert run.out.count("saved ") == 2
    assert (kosmograph.folder / "t.png").exists()
    assert (kosmograph.folder / "t-2.png").exists()
    assert not list(kosmograph.folder.glob("*.db"))


def test_try_and_show_give_the_same_scores_as_json(kosmograph, examples: Path) -> None:
    picture = str(examples / "postcard.jpg")
    run = kosmograph("try", picture, "--model", "demo", "--json", "--task", "brief", "--phrase", "a circle")
    tried, given = (answer["groundings"] for answer in json.loads(run.out))
    assert all(0 < box["score"] <= 1 and 0 < box["phrase_score"] <= 1 for box in tried)
    assert given
    assert {box["phrase_score"] for box in given if box["phrase"] == "a circle"} == {None}
    kosmograph.annotate(picture, "--model", "demo", "--exact")
    (shown,) = json.loads(kosmograph("show", picture, "--json").out)
    scores = [(box["score"], box["phrase_score"]) for box in shown["boxes"]]
    assert scores == [pytest.approx((box["score"], box["phrase_score"]), rel=1e-4) for box in tried]


@pytest.fixture
def examples() -> Path:
    return Path(__file__).parents[2] / "examples" / "images"


def test_standard_input_is_kept_until_it_is_listed(kosmograph, many) -> None:
    names = "\n".join(map(str, sorted(many(5).iterdir())))
    run = kosmograph.annotate("-", "--root", str(many(5)), input=names)
    assert run.code == 0, run.err
    assert "5 images, 5 annotated" in run.out
    assert not list(kosmograph.folder.glob("stdin-*"))
