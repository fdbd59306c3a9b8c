"""What is asked and what counts, on made-up annotations and answers."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kosmograph.evaluation.coco import read_coco
from kosmograph.evaluation.flickr30k import boxes_in, phrases_in, read_flickr30k
from kosmograph.evaluation.published import published_for
from kosmograph.evaluation.questions import Picture, Question
from kosmograph.evaluation.refcoco import read_refcoco
from kosmograph.evaluation.scoring import Tally, boxes_of, is_right
from schemas.errors import SourceError
from schemas.grounding import Corners, box_from_cells

HALF: Corners = (0.0, 0.0, 0.5, 1.0)
Write = Callable[..., Path]


def obj(*pairs: tuple[int, int]) -> str:
    inner = "</delimiter_of_multi_objects/>".join(f"<patch_index_{a:04}><patch_index_{b:04}>" for a, b in pairs)
    return f"<object>{inner}</object>"


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a file, JSON unless it is text, and gives its path."""

    def make(name: str, content: Any) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    return make


# ---- which boxes count


def test_only_boxes_of_the_phrase_that_was_asked_for_count() -> None:
    text = f"<grounding><phrase> a dog</phrase>{obj((0, 70))} near<phrase> a cat</phrase>{obj((5, 99))}"
    assert boxes_of(text) == [box_from_cells(0, 70)]


def test_all_boxes_of_the_phrase_count_in_their_order_also_where_it_comes_again() -> None:
    text = f"<phrase> a dog</phrase>{obj((64, 99), (0, 70))} and<phrase>a dog </phrase>{obj((7, 77))}"
    assert boxes_of(text) == [box_from_cells(64, 99), box_from_cells(0, 70), box_from_cells(7, 77)]


def test_boxes_count_where_the_tokenizer_has_folded_the_phrase() -> None:
    """The prompt said "½  dog"; the text begins with what the model was given of it."""
    assert boxes_of(f"<grounding><phrase> 1/2 dog</phrase>{obj((0, 70))}") == [box_from_cells(0, 70)]


def test_box_of_no_phrase_and_answer_without_a_box_are_no_boxes() -> None:
    assert boxes_of("<grounding><phrase> a dog</phrase>") == []
    assert boxes_of(f"<grounding><phrase> a dog</phrase> is here{obj((0, 70))}") == []


# ---- when they are right


@pytest.mark.parametrize(
    ("boxes", "first", "right"),
    [
        ([(0.0, 0.0, 0.25, 1.0)], 1, True),  # IoU 0.5 exactly
        ([(0.0, 0.0, 0.249, 1.0)], 1, False),
        ([(0.5, 0.0, 1.0, 1.0), HALF], 1, False),
        ([(0.5, 0.0, 1.0, 1.0), HALF], 5, True),
        ([(0.5, 0.0, 1.0, 1.0)] * 5 + [HALF], 5, False),
        ([(0.5, 0.0, 1.0, 1.0)] * 5 + [HALF], None, True),
        ([(0.5, 1.0, 0.0, 0.0)], 1, False),  # the true box, its corners the wrong way round
        ([], 1, False),
    ],
)
def test_answer_is_right_when_one_of_its_first_boxes_has_iou_of_a_half(
    boxes: list[Corners], first: int | None, right: bool
) -> None:
    assert is_right(Question("", (HALF,), ("all",)), boxes, first) is right


def test_any_of_the_true_boxes_will_do() -> None:
    assert is_right(Question("", ((0.9, 0.9, 1.0, 1.0), HALF), ("all",)), [HALF])


def test_what_is_not_there_is_rightly_answered_with_no_box_and_counts_apart() -> None:
    tally = Tally({"R@1": 1})
    tally.add(Question("", (HALF,), ("all", "dog")), [HALF])
    tally.add(Question("", (HALF,), ("all", "cat")), [])
    tally.add(Question("", (), ("all",)), [HALF])
    tally.add(Question("", (), ("all",)), [])
    tally.add(Question("", (), ("all",)), [])
    found = [(one.group, one.measure, one.n, one.score, one.paper) for one in tally.scores({("all", "R@1"): 0.75})]
    assert found == [
        ("all", "R@1", 2, 0.5, 0.75),
        ("all", "absent_unanswered", 3, 2 / 3, None),
        ("cat", "R@1", 1, 0.0, None),
        ("dog", "R@1", 1, 1.0, None),
    ]


# ---- RefCOCO


def expression(number: int, caption: str, **more: Any) -> dict[str, Any]:
    about = {"id": number, "file_name": "COCO_train2014_000000000001.jpg", "width": 200, "height": 100}
    return about | {"caption": caption, "dataset_name": "refcoco+"} | more


def test_refcoco_asks_for_every_expression_of_an_image_in_a_row(write: Write) -> None:
    path = write(
        "finetune_refcoco+_val.json",
        {
            "images": [
                expression(7, "left dog "),
                expression(8, "a cat", file_name="other.jpg"),
                expression(9, "right dog"),
            ],
            "annotations": [
                {"image_id": 9, "bbox": [100, 0, 100, 50]},
                {"image_id": 7, "bbox": [20, 10, 40, 50], "id": 1},
                {"image_id": 8, "bbox": [0, 0, 200, 100]},
            ],
            "categories": [],
        },
    )
    dogs = (
        Question("<grounding><phrase>left dog</phrase>", ((0.1, 0.1, 0.3, 0.6),), ("refcoco+",)),
        Question("<grounding><phrase>right dog</phrase>", ((0.5, 0.0, 1.0, 0.5),), ("refcoco+",)),
    )
    cat = Question("<grounding><phrase>a cat</phrase>", ((0.0, 0.0, 1.0, 1.0),), ("refcoco+",))
    assert read_refcoco(path) == [
        Picture("COCO_train2014_000000000001.jpg", 200, 100, dogs),
        Picture("other.jpg", 200, 100, (cat,)),
    ]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "the file: "),
        ({"images": []}, "annotations: Field required"),
        ({"images": [expression(1, "x", width=0)], "annotations": []}, "images.0.width"),
        ({"images": [], "annotations": [{"image_id": 1, "bbox": [1, 2, 3]}]}, "annotations.0.bbox"),
        ('{"images": [], "annotations": [{"image_id": 1, "bbox": [1, 2, 3, NaN]}]}', "annotations.0.bbox.3"),
        ({"images": [expression(1, "x")], "annotations": []}, "no annotation for the image id 1"),
    ],
)
def test_annotations_that_are_none_are_told_in_one_line_with_their_place(
    write: Write, content: Any, words: str
) -> None:
    with pytest.raises(SourceError) as refusal:
        read_refcoco(write("finetune_refcoco_val.json", content))
    assert words in str(refusal.value)
    assert "\n" not in str(refusal.value)


# ---- Flickr30k Entities

LINES = """\
[/EN#11/people A man] in [/EN#12/clothing/other a hat] sees [/EN#11/people a man] and [/EN#0/notvisual nothing] .
[/EN#13/scene A street] with [/EN#14/people two  men] .
"""
XML = """<annotation><filename>5.jpg</filename><size><width>200</width><height>100</height><depth>3</depth></size>
<object><name>11</name><bndbox><xmin>20</xmin><ymin>10</ymin><xmax>60</xmax><ymax>100</ymax></bndbox></object>
<object><name>12</name><bndbox><xmin>30</xmin><ymin>10</ymin><xmax>40</xmax><ymax>20</ymax></bndbox></object>
<object><name>14</name><name>11</name><bndbox><xmin>100</xmin><ymin>0</ymin><xmax>200</xmax><ymax>50</ymax></bndbox></object>
<object><name>13</name><scene>1</scene><nobndbox>0</nobndbox></object>
</annotation>"""


def sentence(number: int, caption: str, *phrases: str) -> dict[str, Any]:
    spans = [[[caption.index(phrase), caption.index(phrase) + len(phrase)]] for phrase in phrases]
    about = {"id": 100 + number, "file_name": "5.jpg", "width": 200, "height": 100, "caption": caption}
    return about | {"original_img_id": 5, "sentence_id": number, "tokens_positive_eval": spans}


def test_flickr30k_asks_for_each_phrase_that_has_a_box_after_the_words_before_it(write: Write, tmp_path: Path) -> None:
    write("Sentences/5.txt", LINES)
    write("Annotations/5.xml", XML)
    said = "A man in a hat sees a man and nothing ."
    images = [
        sentence(0, said, "A man", "a hat", "nothing"),
        sentence(1, "A street with two men .", "A street", "two men"),
    ]
    (picture,) = read_flickr30k(write("final_flickr_separateGT_val.json", {"images": images}), tmp_path)
    man, men = (0.1, 0.1, 0.3, 1.0), (0.5, 0.0, 1.0, 0.5)
    assert picture.questions == (
        Question("<grounding> <phrase>A man</phrase>", (man, men), ("all", "people")),
        Question("<grounding>A man in  <phrase>a hat</phrase>", ((0.15, 0.1, 0.2, 0.2),), ("all", "clothing", "other")),
        Question("<grounding>A street with  <phrase>two men</phrase>", (men,), ("all", "people")),
    )


def test_phrases_of_a_sentence_have_their_id_types_and_words() -> None:
    first, second = phrases_in(LINES)
    assert [(one.id, one.types, one.words) for one in first][1:] == [
        ("12", ("clothing", "other"), "a hat"),
        ("11", ("people",), "a man"),
        ("0", ("notvisual",), "nothing"),
    ]
    assert [one.words for one in second] == ["A street", "two men"]


BOMB = '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">]><annotation>&b;</annotation>'


@pytest.mark.parametrize(
    ("xml", "words"),
    [
        (BOMB, "document type"),
        ('<!DOCTYPE x SYSTEM "file:///etc/passwd"><annotation/>', "document type"),
        ("<annotation>", "no element"),
        ("", "no element"),
        ("<a><object><name>1</name><bndbox><xmin>1</xmin></bndbox></object></a>", "convert"),
    ],
)
def test_xml_with_a_document_type_or_that_is_broken_is_refused(write: Write, xml: str, words: str) -> None:
    with pytest.raises(SourceError, match=words):
        boxes_in(write("5.xml", xml))


def test_missing_entities_are_told_with_the_option_that_names_them(write: Write, tmp_path: Path) -> None:
    path = write("final_flickr_separateGT_val.json", {"images": [sentence(0, "A man .", "A man")]})
    with pytest.raises(SourceError, match=r"Sentences.5\.txt cannot be read .*--entities"):
        read_flickr30k(path, tmp_path)
    write("Sentences/5.txt", "")
    write("Annotations/5.xml", XML)
    with pytest.raises(SourceError, match="no sentence 0 of the image 5"):
        read_flickr30k(path, tmp_path)


# ---- COCO


def instances(*annotations: tuple[int, int, list[int]], crowd: int = 0) -> dict[str, Any]:
    return {
        "images": [{"id": n, "file_name": f"{n}.jpg", "width": 100, "height": 100} for n in (1, 2)],
        "categories": [{"id": n, "name": name} for n, name in ((1, "dog"), (3, "cat"), (4, "hot dog"))],
        "annotations": [
            {"image_id": i, "category_id": c, "bbox": box, "iscrowd": int(n < crowd)}
            for n, (i, c, box) in enumerate(annotations)
        ],
    }


def test_coco_asks_for_each_category_of_an_image_and_for_one_that_it_lacks(write: Write) -> None:
    path = write(
        "instances.json",
        instances((1, 1, [0, 0, 50, 100]), (1, 3, [50, 50, 50, 50]), (1, 1, [50, 0, 50, 100]), (2, 4, [0, 0, 10, 10])),
    )
    first, second = read_coco(path)
    assert first.questions == (
        Question("<grounding><phrase>dog</phrase>", (HALF, (0.5, 0.0, 1.0, 1.0)), ("all", "dog")),
        Question("<grounding><phrase>cat</phrase>", ((0.5, 0.5, 1.0, 1.0),), ("all", "cat")),
        Question("<grounding><phrase>hot dog</phrase>", (), ("all",)),
    )
    assert second.questions[1].prompt in {f"<grounding><phrase>{name}</phrase>" for name in ("dog", "cat")}
    assert read_coco(path) == [first, second]


def test_crowd_is_neither_asked_for_nor_taken_for_absent(write: Write) -> None:
    first, _ = read_coco(write("instances.json", instances((1, 1, [0, 0, 9, 9]), (1, 3, [0, 0, 9, 9]), crowd=1)))
    assert [question.prompt for question in first.questions] == [
        "<grounding><phrase>cat</phrase>",
        "<grounding><phrase>hot dog</phrase>",
    ]


def test_box_of_an_unknown_image_or_category_is_told(write: Write) -> None:
    with pytest.raises(SourceError, match="image 9 or the category 1"):
        read_coco(write("instances.json", instances((9, 1, [0, 0, 9, 9]))))


# ---- what was published


@pytest.mark.parametrize(
    ("dataset", "name", "key", "figure"),
    [
        ("refcoco", "finetune_refcoco_val.json", ("refcoco", "accuracy"), 0.5232),
        ("refcoco", "finetune_refcoco+_testB.json", ("refcoco+", "accuracy"), 0.4224),
        ("refcoco", "finetune_refcocog_test.json", ("refcocog", "accuracy"), 0.6165),
        ("flickr30k", "final_flickr_separateGT_val.json", ("people", "R@1"), 0.890),
        ("flickr30k", "final_flickr_separateGT_test.json", ("all", "R@10"), 0.801),
    ],
)
def test_published_figure_is_that_of_the_split_in_the_files_name(
    dataset: str, name: str, key: tuple[str, str], figure: float
) -> None:
    assert published_for(dataset, Path("somewhere") / name)[key] == figure


@pytest.mark.parametrize(
    ("dataset", "name"),
    [
        ("refcoco", "finetune_refcoco_train.json"),
        ("refcoco", "finetune_refcocog_testA.json"),
        ("refcoco", "mine.json"),
        ("flickr30k", "final_flickr_mergedGT_val.json"),
        ("coco-json", "finetune_refcoco_val.json"),
    ],
)
def test_nothing_is_published_of_other_files(dataset: str, name: str) -> None:
    assert published_for(dataset, Path(name)) == {}
