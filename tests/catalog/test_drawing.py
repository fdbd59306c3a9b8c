"""Pictures with boxes: what must be visible is, and no text or box is too odd to be drawn."""

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import pytest
import skimage.data
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from catalog import gallery
from catalog.drawing import COLOURS, DARK, LIGHT, DrawnPhrase, draw, ink_on
from catalog.lettering import font_of, legible, shortened, wrapped

Colour = tuple[int, int, int]
NAMES = ["red", "green", "blue", "white", "black", "grey", "pink", "brown"]
EIGHT = [
    DrawnPhrase(f"a {name} thing", [(x, y, x + 0.15, y + 0.35)])
    for name, (x, y) in zip(NAMES, [(x, y) for y in (0.1, 0.6) for x in (0.05, 0.3, 0.55, 0.8)], strict=True)
]
EIGHT_CAPTION = "An image of " + ", ".join(phrase.phrase for phrase in EIGHT) + "."

fractions = st.one_of(st.floats(0, 1), st.floats())
drawn_phrases = st.lists(
    st.builds(
        DrawnPhrase,
        phrase=st.text(max_size=20),
        boxes=st.lists(st.tuples(fractions, fractions, fractions, fractions), max_size=3),
        scores=st.lists(st.none() | st.floats(), max_size=4),
        valid=st.booleans(),
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
    for phrase, colour in zip(EIGHT, COLOURS, strict=True):
        x1, y1, x2, y2 = (round(part * side) for part, side in zip(phrase.boxes[0], (1000, 800) * 2, strict=True))
        assert share(drawn, edge(x1, y1, x2, y2), colour) > 0.7  # its own tab may lie on a part of it
        outer = [(x, y2 + 1) for x in range(x1, x2)]
        assert share(drawn, outer, colour) < 0.5


def test_full_frame_box_is_wholly_visible() -> None:
    drawn = draw(Image.new("RGB", (640, 480), "gray"), "", [DrawnPhrase("all", [(0.0, 0.0, 1.0, 1.0)])])
    assert share(drawn, edge(1, 1, 638, 478), COLOURS[0]) > 0.9


def test_inverted_box_is_upright_and_dashed() -> None:
    ground = Image.new("RGB", (640, 480), "gray")
    inverted = [DrawnPhrase("x", [(0.75, 0.75, 0.25, 0.25)], valid=False)]
    assert 0.5 < share(draw(ground, "", inverted), edge(160, 120, 480, 360), COLOURS[0]) < 0.9


def test_caption_carries_the_colour_of_each_phrase() -> None:
    size = (1000, 800)
    strip = draw(Image.new("RGB", size), EIGHT_CAPTION, EIGHT).crop((0, 800, 1000, 10_000))
    seen = {colour for _, colour in strip.getcolors(100_000) or []}
    assert set(COLOURS) <= seen


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
@given(st.text(max_size=80), drawn_phrases, st.text(max_size=20), st.tuples(st.integers(1, 60), st.integers(1, 60)))
def test_nothing_is_too_odd_to_be_drawn(
    caption: str, phrases: list[DrawnPhrase], note: str, size: tuple[int, int]
) -> None:
    drawn = draw(Image.new("RGB", size), caption, phrases, note)
    assert 480 <= drawn.width <= 1280


@pytest.mark.parametrize("caption", ["A 😀 café 👩‍🚀 “猫”", "\ud800\x00\u202e", "word" * 3000, "a\n\tb " * 500])
def test_hard_captions_are_drawn(caption: str) -> None:
    drawn = draw(Image.new("RGB", (64, 64)), caption, [DrawnPhrase(caption, [(0.1, 0.1, 0.9, 0.9)], [0.5])])
    assert drawn.height >= 640


def test_labels_do_not_lie_on_one_another() -> None:
    """Eight boxes in one place: each tab is whole, so each colour keeps the area that its tab alone has."""
    place = (0.4, 0.4, 0.6, 0.6)
    ground = Image.new("RGB", (1000, 800), "gray")

    def area(drawn: Image.Image, colour: Colour) -> int:
        return sum(count for count, seen in drawn.getcolors(1_000_000) or [] if seen == colour)

    crowd = draw(ground, "", [DrawnPhrase("the same thing", [place]) for _ in COLOURS])
    for index, colour in enumerate(COLOURS[:-1]):  # the last outline lies on all the others
        nothing = [DrawnPhrase("", [])] * index
        alone = draw(ground, "", [*nothing, DrawnPhrase("the same thing", [place])])
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
    box = (0.1, 0.1, 0.9, 0.9)
    assert DrawnPhrase("a dog", [box, box], [0.9, score], valid=valid).remark(1) == remark
    assert DrawnPhrase("a dog", [box]).remark(0) == ""


def test_score_makes_its_own_label_longer_and_no_other() -> None:
    """Given two boxes of a phrase, when one has a score, then its tab alone grows."""
    ground = Image.new("RGB", (640, 480), "gray")
    boxes = [(0.1, 0.2, 0.4, 0.8), (0.6, 0.2, 0.9, 0.8)]

    def tab(scores: list[float | None], left: bool) -> int:
        drawn = draw(ground, "", [DrawnPhrase("a dog", boxes, scores)])
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
