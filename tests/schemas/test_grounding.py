"""The parser: equal to transformers where that is right, and gentle where it is not."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoProcessor
from transformers.models.kosmos2.processing_kosmos2 import (
    clean_text_and_extract_entities_with_bboxes,
    coordinate_to_patch_index,
    patch_index_to_coordinate,
)

from schemas.grounding import (
    Box,
    Corners,
    Entity,
    Grounding,
    box_from_cells,
    cells_from_box,
    iou,
    parse,
    phrase_norm,
)

SNOWMAN = (
    "<grounding> An image of<phrase> a snowman</phrase><object><patch_index_0044><patch_index_0863></object>"
    " warming himself by<phrase> a fire</phrase><object><patch_index_0005><patch_index_0911></object>."
)
DELIMITER = "</delimiter_of_multi_objects/>"
TAGS = [
    *("<grounding>", "<phrase>", "</phrase>", "<object>", "</object>", DELIMITER, "<image>", "</image>", "<s>", "</s>"),
    *("<pad>", "<unk>", "<mask>", "</doc>", "</chunk>", "</line>"),
]

Theirs = tuple[str, list[tuple[str, tuple[int, int], list[tuple[float, float, float, float]]]]]


def ours(raw_text: str) -> Theirs:
    """Our grounding in the form that transformers gives."""
    grounding = parse(raw_text)
    entities = [
        (entity.phrase, (entity.start, entity.end), [(box.x1, box.y1, box.x2, box.y2) for box in entity.boxes])
        for entity in grounding.entities
    ]
    return grounding.caption, entities


def cell(index: int) -> str:
    return f"<patch_index_{index:04}>"


def pair(first: int, second: int) -> str:
    return cell(first) + cell(second)


def only(raw_text: str) -> Entity:
    """The single entity of a text."""
    (entity,) = parse(raw_text).entities
    return entity


cells = st.integers(0, 1023)
words = st.text(st.characters(exclude_characters="<", exclude_categories=["Cs"]), max_size=12)
phrases = words.filter(str.strip)
pairs = st.lists(st.tuples(cells, cells), min_size=1, max_size=3)


@st.composite
def well_formed(draw: st.DrawFn) -> str:
    """Text with phrases and their objects, as the model is trained to write it."""
    text = draw(st.sampled_from(["", "<grounding>", "<s><grounding>"])) + draw(words)
    for phrase, boxes, after in draw(st.lists(st.tuples(phrases, pairs, words), max_size=4)):
        objects = DELIMITER.join(pair(*box) for box in boxes)
        text += f"<phrase>{phrase}</phrase><object>{objects}</object>{after}"
    return text + draw(st.sampled_from(["", "</s>"]))


any_text = st.lists(
    st.one_of(st.sampled_from(TAGS), st.integers(0, 9999).map(cell), words, st.text(max_size=5), st.just("<"))
).map("".join)


@pytest.fixture(scope="module")
def processor() -> Any:
    return AutoProcessor.from_pretrained(Path(__file__).parents[2] / "worker" / "demo")


def test_published_snowman() -> None:
    snowman = Box(0.390625, 0.046875, 0.984375, 0.828125, 44, 863, -4, True)
    fire = Box(0.171875, 0.015625, 0.484375, 0.890625, 5, 911, -2, True)
    assert parse(SNOWMAN) == Grounding(
        "An image of a snowman warming himself by a fire.",
        (Entity("a snowman", 12, 21, (snowman,)), Entity("a fire", 41, 47, (fire,))),
    )


@pytest.mark.parametrize(
    "raw_text",
    [
        SNOWMAN,
        "",
        "<grounding> An image of nothing.",
        f"<grounding><phrase> It</phrase><object>{pair(44, 863)}</object> is a snowman",
        f"<phrase> dogs</phrase><object>{pair(1, 70)}{DELIMITER}{pair(5, 99)}</object>",
        f"<phrase> a dog </phrase><object>{pair(863, 44)}</object>  ",
        f"<grounding> <phrase> alone</phrase> and<phrase> a dog</phrase><object>{pair(7, 7)}</object></s>",
    ],
)
def test_golden_texts_read_as_by_the_processor(processor: Any, raw_text: str) -> None:
    assert ours(raw_text) == processor.post_process_generation(raw_text)


@given(well_formed())
def test_well_formed_text_reads_as_by_transformers(raw_text: str) -> None:
    assert ours(raw_text) == clean_text_and_extract_entities_with_bboxes(raw_text)


@given(cells, cells)
def test_box_from_cells_is_that_of_transformers(first: int, second: int) -> None:
    assert box_from_cells(first, second) == patch_index_to_coordinate(first, second, 32)


def test_full_frame_within_one_row_and_one_cell() -> None:
    assert box_from_cells(0, 1023) == (0.015625, 0.015625, 0.984375, 0.984375)
    assert box_from_cells(0, 31) == (0.0, 0.0, 1.0, 0.03125)
    assert box_from_cells(33, 33) == (0.03125, 0.03125, 0.0625, 0.0625)


@given(any_text)
def test_every_text_has_a_grounding_whose_spans_are_words_of_the_caption(raw_text: str) -> None:
    grounding = parse(raw_text)
    assert grounding.caption == grounding.caption.strip()
    for entity in grounding.entities:
        assert 0 <= entity.start <= entity.end <= len(grounding.caption)
        assert grounding.caption[entity.start : entity.end] == entity.phrase == entity.phrase.strip()
        assert entity.boxes


@given(any_text)
def test_every_box_names_the_place_of_its_tokens(raw_text: str) -> None:
    """Counted from the end, over all location tokens, whatever odd ones lie between."""
    tokens = [
        int(part[:4]) for part in raw_text.split("<patch_index_")[1:] if part[4:5] == ">" and part[:4].isdecimal()
    ]
    boxes = [box for entity in parse(raw_text).entities for box in entity.boxes]
    for box in boxes:
        at = len(tokens) + box.token
        assert tokens[at : at + 2] == [box.first, box.second]
    assert len({box.token for box in boxes}) == len(boxes)


@given(words)
def test_text_without_tags_is_its_own_caption(text: str) -> None:
    assert parse(text) == Grounding(text.strip(), ())


@pytest.mark.parametrize("text", ["3 < 5 and 7 > 2", "<b>bold</b>", "a <- b", "<patch_index_44>", "<phrase >", "x <"])
def test_angle_brackets_that_are_no_tag_survive(text: str) -> None:
    assert parse(f"<grounding> {text}</s>").caption == text


def test_phrase_with_an_angle_bracket_keeps_its_box() -> None:
    entity = only(f"<grounding> so<phrase> 3 < 5</phrase><object>{pair(44, 863)}</object>")
    assert (entity.phrase, entity.start, entity.end) == ("3 < 5", 3, 8)


def test_every_known_tag_is_left_out_of_the_caption() -> None:
    assert parse("a" + "".join(TAGS) + pair(44, 863) + "b").caption == "ab"


def test_inverted_pair_is_kept_and_not_valid() -> None:
    (box,) = only(f"<phrase>x</phrase><object>{pair(863, 44)}</object>").boxes
    assert (box.x1, box.y1, box.x2, box.y2) == (0.984375, 0.828125, 0.390625, 0.046875)
    assert not box.valid
    assert box.area == 0.0


@pytest.mark.parametrize(("first", "second"), [(44, 1024), (9999, 9999), (1024, 3)])
def test_cell_beyond_the_grid_is_kept_and_not_valid(first: int, second: int) -> None:
    (box,) = only(f"<phrase>x</phrase><object>{pair(first, second)}</object>").boxes
    assert (box.first, box.second, box.valid) == (first, second, False)


@pytest.mark.parametrize(("first", "second"), [(33, 1), (40, 39), (34, 65)])
def test_pair_that_is_inverted_in_one_direction_only_is_not_valid(first: int, second: int) -> None:
    (box,) = only(f"<object>{pair(first, second)}</object>").boxes
    assert not box.valid


@pytest.mark.parametrize(
    ("objects", "pairs_read"),
    [
        (cell(1), []),
        (pair(1, 70) + cell(3), [(1, 70)]),
        (cell(3) + DELIMITER + pair(1, 70), [(1, 70)]),
        (pair(1, 70) + pair(5, 99), [(1, 70), (5, 99)]),
        (f" {cell(1)} {cell(70)} {DELIMITER} {pair(5, 99)} ", [(1, 70), (5, 99)]),
    ],
)
@pytest.mark.parametrize("end", ["</object>", "", "</s>", "</object></object>", "<phrase> cut"])
def test_whole_pairs_of_an_object_count_and_odd_tokens_do_not(
    objects: str, pairs_read: list[tuple[int, int]], end: str
) -> None:
    grounding = parse(f"<grounding><phrase> a dog</phrase><object>{objects}{end}")
    boxes = [(box.first, box.second) for entity in grounding.entities for box in entity.boxes]
    assert boxes == pairs_read
    assert grounding.caption.startswith("a dog")


def test_phrase_without_a_box_is_just_words() -> None:
    assert parse("<phrase> a dog</phrase> and<phrase> a cat</phrase><object></object>") == Grounding(
        "a dog and a cat", ()
    )


def test_box_without_a_phrase_is_an_entity_with_an_empty_span_where_it_stood() -> None:
    entity = only(f"<grounding> a dog <object>{pair(44, 863)}{DELIMITER}{pair(1, 70)}</object> runs")
    assert (entity.phrase, entity.start, entity.end, len(entity.boxes)) == ("", 6, 6, 2)


def test_object_after_other_words_does_not_take_an_earlier_phrase() -> None:
    assert only(f"<phrase> a dog</phrase> runs<object>{pair(44, 863)}</object>").phrase == ""


def test_phrase_that_was_not_closed_ends_at_its_object() -> None:
    assert only(f"<phrase> a dog<object>{pair(44, 863)}</object> runs").phrase == "a dog"


def test_long_nonsense_is_read_in_linear_time() -> None:
    """A quadratic expression would need minutes for one of these."""
    for part in ("<phrase>", "<", " ", "<phrase> ", "<object>", cell(1), f"<phrase>a</phrase><object>{pair(1, 2)}"):
        parse("<phrase>" + part * 20_000)


@pytest.mark.parametrize(
    ("phrase", "norm"),
    [
        ("A Snowman", "snowman"),
        ("an  old\nman", "old man"),
        ("the", "the"),
        ("Another dog", "another dog"),
        ("The the", "the"),
        ("  ", ""),
        ("anchor", "anchor"),
    ],
)
def test_phrase_norm(phrase: str, norm: str) -> None:
    assert phrase_norm(phrase) == norm


corners = st.integers(0, 10_000).map(lambda number: number / 10_000)
sides = st.tuples(corners, corners).map(sorted).filter(lambda side: side[0] < side[1])


@given(sides, sides)
def test_corners_are_in_the_cells_that_transformers_names(across: list[float], down: list[float]) -> None:
    box = (across[0], down[0], across[1], down[1])
    first, second = cells_from_box(*box)
    assert (first, second) == tuple(coordinate_to_patch_index(box, 32))
    assert 0 <= first <= second < 1024
    assert first % 32 <= second % 32


@pytest.mark.parametrize(
    ("one", "other", "overlap"),
    [
        ((0.0, 0.0, 0.5, 0.5), (0.0, 0.0, 0.5, 0.5), 1.0),
        ((0.0, 0.0, 0.5, 1.0), (0.25, 0.0, 0.75, 1.0), 1 / 3),
        ((0.0, 0.0, 100.0, 100.0), (50.0, 50.0, 150.0, 150.0), 1 / 7),
        ((0.0, 0.0, 0.5, 0.5), (0.5, 0.0, 1.0, 0.5), 0.0),
        ((0.0, 0.0, 0.25, 0.25), (0.5, 0.5, 1.0, 1.0), 0.0),
        ((0.5, 0.5, 0.5, 0.5), (0.5, 0.5, 0.5, 0.5), 0.0),
    ],
)
def test_iou_is_what_boxes_share_over_what_they_cover(one: Corners, other: Corners, overlap: float) -> None:
    assert iou(one, other) == iou(other, one) == pytest.approx(overlap)


@pytest.mark.parametrize("inverted", [(0.75, 0.25, 0.25, 0.75), (0.25, 0.75, 0.75, 0.25), (0.75, 0.75, 0.25, 0.25)])
def test_iou_of_an_inverted_box_is_zero_with_every_other(inverted: Corners) -> None:
    assert iou(inverted, (0.25, 0.25, 0.75, 0.75)) == iou(inverted, inverted) == 0.0
