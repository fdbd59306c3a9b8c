"""Pictures with boxes: what must be visible is, and no text or box is too odd to be drawn."""

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import pytest
import skimage.data
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageChops

from catalog import gallery
from catalog.drawing import COLOURS, DARK, LIGHT, draw, ink_on, pieces_of, remark_of
from catalog.lettering import font_of, legible, shortened, wrapped
from catalog.records import Box, Entity

Colour = tuple[int, int, int]
Corners = tuple[float, float, float, float]
NAMES = ["red", "green", "blue", "white", "black", "grey", "pink", "brown"]


def a_box(corners: Corners, score: float | None = None, valid: bool = True) -> Box:
    return Box(*corners, 0.0, score, valid)


def an_entity(phrase: str, *boxes: Box, ordinal: int = 0, start: int = 0) -> Entity:
    return Entity(ordinal, phrase, phrase, phrase, start, start + len(phrase), None, boxes)


EIGHT_CAPTION = "An image of " + ", ".join(f"a {name} thing" for name in NAMES) + "."
EIGHT = [
    an_entity(phrase, a_box((x, y, x + 0.15, y + 0.35)), ordinal=number, start=EIGHT_CAPTION.index(phrase))
    for number, (phrase, (x, y)) in enumerate(
        zip(
            [f"a {name} thing" for name in NAMES],
            [(x, y) for y in (0.1, 0.6) for x in (0.05, 0.3, 0.55, 0.8)],
            strict=True,
        )
    )
]

fractions = st.one_of(st.floats(0, 1), st.floats())
entities = st.lists(
    st.builds(
        an_entity,
        st.text(max_size=20),
        st.builds(a_box, st.tuples(fractions, fractions, fractions, fractions), st.none() | st.floats(), st.booleans()),
        ordinal=st.integers(0, 20),
        start=st.integers(-3, 90),
    ),
    max_size=4,
)


def share(image: Image.Image, points: Sequence[tuple[int, int]], colour: Colour) -> float:
    """How many of the points have the colour."""
    return sum(image.getpixel(point) == colour for point in points) / len(points)


def edge(x1: int, y1: int, x2: int, y2: int) -> list[tuple[int, int]]:
    """Points in the line of a box, one pixel from its outer rim."""
    across = [(x, y) for x in range(x1 + 3, x2 - 2) for y in (y1 + 1, y2 - 1)]
    return across + [(x, y) for y in range(y1 + 3, y2 - 2) for x in (x1 + 1, x2 - 1)]


@pytest.mark.parametrize(
    ("size", "picture"),
    [
        ((640, 480), (640, 480)),
        ((32, 32), (640, 640)),
        ((4000, 300), (1280, 240)),
        ((300, 4000), (480, 1280)),
        ((1, 1), (640, 640)),
        ((9000, 1), (1280, 240)),
    ],
)
def test_picture_is_large_enough_to_read_and_never_huge(size: tuple[int, int], picture: tuple[int, int]) -> None:
    assert draw(Image.new("RGB", size), "", []).size == picture


@pytest.mark.parametrize("ground", ["black", "white", *COLOURS])
def test_every_box_shows_in_its_colour_on_any_ground(ground: str | Colour) -> None:
    drawn = draw(Image.new("RGB", (1000, 800), ground), EIGHT_CAPTION, EIGHT)
    for entity, colour in zip(EIGHT, COLOURS, strict=True):
        corners = zip(entity.boxes[0][:4], (1000, 800) * 2, strict=True)
        x1, y1, x2, y2 = (round(part * side) for part, side in corners)
        assert share(drawn, edge(x1, y1, x2, y2), colour) > 0.7  # its own tab may lie on a part of it
        outer = [(x, y2 + 1) for x in range(x1, x2)]
        assert share(drawn, outer, colour) < 0.5


def test_full_frame_box_is_wholly_visible() -> None:
    drawn = draw(Image.new("RGB", (640, 480), "gray"), "", [an_entity("all", a_box((0.0, 0.0, 1.0, 1.0)))])
    assert share(drawn, edge(1, 1, 638, 478), COLOURS[0]) > 0.9


def test_inverted_box_is_upright_and_dashed() -> None:
    ground = Image.new("RGB", (640, 480), "gray")
    inverted = [an_entity("x", a_box((0.75, 0.75, 0.25, 0.25), valid=False))]
    assert 0.5 < share(draw(ground, "", inverted), edge(160, 120, 480, 360), COLOURS[0]) < 0.9


def test_box_beside_an_inverted_one_of_its_phrase_has_its_whole_line() -> None:
    ground = Image.new("RGB", (1000, 800), "gray")
    pair = [an_entity("x", a_box((0.1, 0.1, 0.4, 0.9)), a_box((0.9, 0.9, 0.6, 0.1), valid=False))]
    drawn = draw(ground, "", pair)
    assert share(drawn, edge(100, 80, 400, 720), COLOURS[0]) > 0.9
    assert 0.5 < share(drawn, edge(600, 80, 900, 720), COLOURS[0]) < 0.9


def test_caption_carries_the_colour_of_each_phrase() -> None:
    size = (1000, 800)
    strip = draw(Image.new("RGB", size), EIGHT_CAPTION, EIGHT).crop((0, 800, 1000, 10_000))
    seen = {colour for _, colour in strip.getcolors(100_000) or []}
    assert set(COLOURS) <= seen


def test_phrase_is_marked_where_it_stands_and_not_where_it_is_said_first() -> None:
    """Given the second dog of "a dog and a dog", then words and box have its colour, and the first dog has none."""
    second = an_entity("a dog", a_box((0.1, 0.1, 0.9, 0.9)), ordinal=1, start=10)
    assert list(pieces_of("a dog and a dog.", [second])) == [("a dog and ", None), ("a dog", second), (".", None)]
    drawn = draw(Image.new("RGB", (1000, 800)), "a dog and a dog", [second])
    strip = drawn.crop((0, 800, 1000, 10_000))
    tab = [x for x in range(strip.width) for y in range(strip.height) if strip.getpixel((x, y)) == COLOURS[1]]
    assert min(tab) > 60  # the first dog begins at 14
    assert share(drawn, edge(100, 80, 900, 720), COLOURS[1]) > 0.8


def test_letters_that_are_drawn_otherwise_do_not_move_the_colour_of_a_phrase() -> None:
    """Given a caption whose letters fold, fall away and become two, then the tab lies under the phrase all the same."""

    def tab(caption: str) -> tuple[int, int, int, int] | None:
        dog = an_entity("a dog", a_box((0.1, 0.1, 0.9, 0.9)), start=caption.index("a dog"))
        strip = draw(Image.new("RGB", (1000, 800)), caption, [dog]).crop((0, 800, 1000, 10_000))
        away = ImageChops.difference(strip, Image.new("RGB", strip.size, COLOURS[0])).convert("L")
        return away.point(lambda value: 255 * (value == 0)).getbbox()

    assert tab("strasse cafe a a dog")
    assert tab("stra\u00dfe  \n cafe\u0301 a\u200d a dog") == tab("strasse cafe a a dog")


def test_colours_are_told_apart_in_lightness_by_neighbours() -> None:
    luma = [299 * red + 587 * green + 114 * blue for red, green, blue in COLOURS]
    assert all(abs(one - other) > 20_000 for one, other in zip(luma, luma[1:] + luma[:1], strict=True))
    assert all(one != other for one, other in combinations(COLOURS, 2))


def test_words_on_a_colour_are_legible() -> None:
    assert [ink_on(colour) for colour in ((0, 0, 0), (255, 255, 255), (0, 0, 200))] == [LIGHT, DARK, LIGHT]
    assert ink_on((213, 94, 0)) == DARK  # 4.9 to 1, where white has 3.9


def test_gallery_has_the_colours_of_the_drawings() -> None:
    style = (Path(gallery.__file__).parent / "static/gallery.css").read_text()
    for number, colour in enumerate(COLOURS):
        tint, ink = ("#{:02x}{:02x}{:02x}".format(*one) for one in (colour, ink_on(colour)))
        assert f".c{number} {{ --tint: {tint}; --on: {ink}; }}" in style


def test_same_input_gives_the_same_pixels() -> None:
    image = Image.open(Path(skimage.data.__file__).parent / "astronaut.png")
    once, again = (draw(image, EIGHT_CAPTION, EIGHT, note="twice") for _ in range(2))
    assert once.tobytes() == again.tobytes()


def test_input_picture_is_left_as_it_was() -> None:
    image = Image.new("RGB", (640, 480), "gray")
    before = image.tobytes()
    draw(image, EIGHT_CAPTION, EIGHT)
    assert image.tobytes() == before


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "YCbCr", "I;16", "I", "F"])
def test_every_mode_is_drawn(mode: str) -> None:
    assert draw(Image.new(mode, (50, 40)), "a dog", []).mode == "RGB"


def test_transparent_pixels_are_white() -> None:
    assert draw(Image.new("RGBA", (640, 480), (0, 0, 0, 0)), "", []).getpixel((9, 9)) == (255, 255, 255)


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=80), entities, st.text(max_size=20), st.tuples(st.integers(1, 60), st.integers(1, 60)))
def test_nothing_is_too_odd_to_be_drawn(caption: str, phrases: list[Entity], note: str, size: tuple[int, int]) -> None:
    drawn = draw(Image.new("RGB", size), caption, phrases, note)
    assert 480 <= drawn.width <= 1280


@pytest.mark.parametrize("caption", ["A 😀 café 👩‍🚀 “猫”", "\ud800\x00\u202e", "word" * 3000, "a\n\tb " * 500])
def test_hard_captions_are_drawn(caption: str) -> None:
    drawn = draw(Image.new("RGB", (64, 64)), caption, [an_entity(caption, a_box((0.1, 0.1, 0.9, 0.9), 0.5))])
    assert drawn.height >= 640


def test_labels_do_not_lie_on_one_another() -> None:
    """Eight boxes in one place: each tab is whole, so each colour keeps the area that its tab alone has."""
    place = (0.4, 0.4, 0.6, 0.6)
    ground = Image.new("RGB", (1000, 800), "gray")

    def area(drawn: Image.Image, colour: Colour) -> int:
        return sum(count for count, seen in drawn.getcolors(1_000_000) or [] if seen == colour)

    things = [an_entity("the same thing", a_box(place), ordinal=number) for number in range(len(COLOURS))]
    crowd = draw(ground, "", things)
    for thing, colour in zip(things[:-1], COLOURS, strict=False):  # the last outline lies on all the others
        alone = draw(ground, "", [thing])
        outline = 3 * 2 * (200 + 160)
        assert area(crowd, colour) > 0.9 * (area(alone, colour) - outline)


@pytest.mark.parametrize(
    ("score", "valid", "remark"),
    [
        (0.784, True, " .78"),
        (0.004, True, " .00"),
        (1.0, True, " 1.00"),
        (None, True, ""),
        (0.5, False, " .50 (invalid)"),
        (None, False, " (invalid)"),
    ],
)
def test_label_says_the_score_of_its_box_in_short(score: float | None, valid: bool, remark: str) -> None:
    assert remark_of(a_box((0.1, 0.1, 0.9, 0.9), score, valid)) == remark


def test_label_says_the_trust_where_there_is_one() -> None:
    box = a_box((0.1, 0.1, 0.9, 0.9), 0.17)
    assert remark_of(box._replace(trust=0.984)) == " .98"
    assert remark_of(box._replace(trust=1.0)) == " 1.00"


def test_score_makes_its_own_label_longer_and_no_other() -> None:
    """Given two boxes of a phrase, when one has a score, then its tab alone grows."""
    ground = Image.new("RGB", (640, 480), "gray")
    boxes = [(0.1, 0.2, 0.4, 0.8), (0.6, 0.2, 0.9, 0.8)]

    def tab(scores: list[float | None], left: bool) -> int:
        drawn = draw(ground, "", [an_entity("a dog", *map(a_box, boxes, scores))])
        half = drawn.crop((0, 0, 320, 480) if left else (320, 0, 640, 480))
        return sum(count for count, seen in half.getcolors(1_000_000) or [] if seen == COLOURS[0])

    assert tab([None, 0.5], left=False) > tab([None, None], left=False)
    assert tab([None, 0.5], left=True) == tab([None, None], left=True)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("  a\n dog ", "a dog"),
        ("café naïve", "cafe naive"),
        ("straße", "strasse"),
        ("a\u200db", "ab"),
        ("½ 猫", "\uffff \uffff"),
    ],
)
def test_legible(text: str, shown: str) -> None:
    assert legible(text) == shown


@given(st.text(st.characters(codec="ascii"), max_size=200), st.integers(20, 300))
@example("\x1f\r0", 20)
def test_wrapped_lines_hold_every_letter_and_fit(text: str, width: int) -> None:
    font = font_of(14)
    lines = list(wrapped(text, 1, lambda start, end: font.getlength(text[start:end]) <= width))
    held = "".join(text[place] for line in lines for place in line)
    assert "".join(held.split()) == "".join(text.split())
    assert all(font.getlength(text[line.start : line.stop]) <= width for line in lines)


@given(st.text(max_size=60), st.integers(15, 300))
def test_shortened_text_fits(text: str, width: int) -> None:
    font = font_of(14)
    assert font.getlength(shortened(legible(text), font, width)) <= width
