"""A picture with its boxes, their phrases on tabs, and the caption below in the same colours."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple

from PIL import Image, ImageDraw

from catalog.lettering import Font, font_of, legible, placed_letters, shortened, wrapped
from catalog.records import Box, Entity

Rect = tuple[int, int, int, int]
Colour = tuple[int, int, int]

COLOURS: tuple[Colour, ...] = (
    (230, 159, 0),
    (0, 114, 178),
    (240, 228, 66),
    (213, 94, 0),
    (86, 180, 233),
    (136, 34, 85),
    (204, 121, 167),
    (0, 158, 115),
)
"""Okabe and Ito's palette, its black replaced by Tol's wine; neighbours differ in lightness, for any eyes."""

DARK, LIGHT = (16, 16, 20), (255, 255, 255)

LONG_SIDE = (640, 1280)
SMALLEST_STAGE = (480, 240)
"""A narrow or flat picture gets margins up to this size, where its labels have room."""
STAGE, PAPER, INK, GREY = (38, 38, 42), (251, 250, 247), (24, 24, 28), (110, 110, 116)
LINE, PAD, MARGIN = 3, 3, 14


def ink_on(colour: Colour) -> Colour:
    """Dark or light, whichever stands out more on a colour: by the contrast ratio of WCAG 2."""
    ground = _luminance(colour)
    return DARK if _contrast(ground, _luminance(DARK)) >= _contrast(_luminance(LIGHT), ground) else LIGHT


def _contrast(lighter: float, darker: float) -> float:
    return (lighter + 0.05) / (darker + 0.05)


def _luminance(colour: Colour) -> float:
    """From 0 to 1: https://www.w3.org/TR/WCAG22/#dfn-relative-luminance."""
    parts = (part / 255 for part in colour)
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def colour_number(entity: Entity) -> int:
    """Which of COLOURS an entity has, wherever it is shown: by its place in the caption, with or without a box."""
    return entity.ordinal % len(COLOURS)


def note_of(model: str) -> str:
    """What a picture says of the model: the demo model is named as such wherever its output shows."""
    return "demo model" if model == "demo" else ""


def remark_of(box: Box) -> str:
    """What a box's label says after the phrase: how far to trust it, as `.78`, and a word of warning."""
    shown = "" if box.certainty is None else f" {box.certainty:.2f}".replace(" 0.", " .")
    return shown + ("" if box.valid else " (invalid)")


def pieces_of(caption: str, entities: Iterable[Entity]) -> Iterator[tuple[str, Entity | None]]:
    """The caption in pieces, those of phrases with their entities; of phrases that overlap the first one counts."""
    at = 0
    for entity in sorted(entities, key=lambda entity: entity.start):
        if not at <= entity.start < entity.end <= len(caption):
            continue
        if entity.start > at:
            yield caption[at : entity.start], None
        yield caption[entity.start : entity.end], entity
        at = entity.end
    if at < len(caption):
        yield caption[at:], None


class _Mark(NamedTuple):
    """A box of an entity on the canvas."""

    rect: Rect
    entity: Entity
    box: Box

    @property
    def colour(self) -> Colour:
        return COLOURS[colour_number(self.entity)]


def draw(
    image: Image.Image,
    caption: str,
    entities: Sequence[Entity],
    note: str = "",
    *,
    long_side: tuple[int, int] = LONG_SIDE,
) -> Image.Image:
    """The picture, large enough to read, with boxes, labels, and a strip with the caption and a note in grey.

    Phrases without a box are plain words. Boxes that are not valid are dashed. Texts of any kind are drawn: what the
    font lacks is an empty square. The picture's long side is brought into `long_side`, in pixels.
    """
    picture = _scaled(image, long_side)
    width, height = (max(*sides) for sides in zip(picture.size, SMALLEST_STAGE, strict=True))
    left, top = (width - picture.width) // 2, (height - picture.height) // 2
    strip = _strip(width, caption, [entity for entity in entities if entity.boxes], note)
    canvas = Image.new("RGB", (width, height + strip.height), STAGE)
    canvas.paste(picture, (left, top))
    pen = ImageDraw.Draw(canvas)
    marks = [
        _Mark(_placed(box, (left, top, *picture.size)), entity, box) for entity in entities for box in entity.boxes
    ]
    for mark in sorted(marks, key=lambda mark: -_area(mark.rect)):  # small boxes stay visible on large
        _outline(pen, mark.rect, mark.colour, dashed=not mark.box.valid)
    _labels(pen, marks, (width, height))
    canvas.paste(strip, (0, height))
    return canvas


def _scaled(image: Image.Image, long_side: tuple[int, int]) -> Image.Image:
    """In RGB, on white where it is transparent, its long side within `long_side`."""
    if image.has_transparency_data:
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    low, high = long_side
    scale = min(max(max(image.size), low), high) / max(image.size)
    width, height = (max(1, round(side * scale)) for side in image.size)
    resample = Image.Resampling.BICUBIC if scale > 1 else Image.Resampling.LANCZOS
    return image.convert("RGB").resize((width, height), resample)


def _placed(box: Box, frame: Rect) -> Rect:
    """The box in pixels of the canvas, upright, its whole line within the picture at (left, top, width, height)."""
    left, top, width, height = frame

    def along(one: float, other: float, start: int, length: int) -> tuple[int, int]:
        low, high = sorted(round(min(1.0, max(0.0, part)) * length) for part in (one, other))
        low = max(1, min(low, length - 2 * LINE - 2))
        return start + low, start + max(low + 2 * LINE, min(high, length - 2))

    (x1, x2), (y1, y2) = along(box.x1, box.x2, left, width), along(box.y1, box.y2, top, height)
    return x1, y1, x2, y2


def _outline(pen: ImageDraw.ImageDraw, rect: Rect, colour: Colour, *, dashed: bool) -> None:
    """A line in the colour between two hairlines of its opposite: it shows on any ground."""
    x1, y1, x2, y2 = rect
    pen.rectangle((x1 - 1, y1 - 1, x2 + 1, y2 + 1), outline=ink_on(colour), width=LINE + 2)
    if not dashed:
        pen.rectangle(rect, outline=colour, width=LINE)
        return
    edge = LINE - 1
    for x in range(x1, x2, 6 * LINE):
        for y in (y1, y2 - edge):
            pen.rectangle((x, y, min(x + 4 * LINE, x2), y + edge), fill=colour)
    for y in range(y1, y2, 6 * LINE):
        for x in (x1, x2 - edge):
            pen.rectangle((x, y, x + edge, min(y + 4 * LINE, y2)), fill=colour)


def _labels(pen: ImageDraw.ImageDraw, marks: list[_Mark], size: tuple[int, int]) -> None:
    """A tab in the colour of each box, where it hides least."""
    font = _font(size[0], 0)
    ascent, descent = font.getmetrics()
    boxes = [mark.rect for mark in marks]
    taken: list[Rect] = []
    for mark in marks:
        remark, colour = remark_of(mark.box), mark.colour
        room = size[0] * 0.4 - font.getlength(remark)
        text = shortened(legible(mark.entity.phrase) or "(no phrase)", font, room) + remark
        width, height = round(font.getlength(text)) + 12, ascent + descent + 4
        x, y = _spot(mark.rect, (width, height), size, taken, boxes)
        taken.append((x, y, x + width, y + height))
        pen.rounded_rectangle((x, y, x + width - 1, y + height - 1), 3, fill=colour, outline=ink_on(colour))
        pen.text((x + 6, y + 2 + ascent), text, font=font, fill=ink_on(colour), anchor="ls")


def _spot(
    box: Rect, label: tuple[int, int], size: tuple[int, int], taken: list[Rect], boxes: list[Rect]
) -> tuple[int, int]:
    """The corner for a label: touching its box, outside of it, on no other label and on little of other boxes."""

    def covered(at: tuple[int, int]) -> float:
        rect = (*at, at[0] + label[0], at[1] + label[1])
        return sum(_overlap(rect, other) for other in taken) / _area(rect)

    def cost(at: tuple[int, int]) -> float:
        x1, y1, x2, y2 = (*at, at[0] + label[0], at[1] + label[1])
        core = (x1 + LINE + 1, y1 + LINE + 1, x2 - LINE - 1, y2 - LINE - 1)  # to lie on a line is to touch
        hidden = sum(_overlap(core, other) / min(_area(core), _area(other)) for other in boxes)
        away = max(box[0] - x2, x1 - box[2], LINE) + max(box[1] - y2, y1 - box[3], LINE)
        return 20 * covered(at) + hidden + away / label[1]

    (_, y1, _, y2), height = box, label[1]
    touching = [y1 - height - 1, y2 + 2, y1 + LINE, y2 - height - LINE]
    spot = min(_corners(touching, box, label, size), key=cost)
    if not covered(spot):
        return spot
    around = range(y1 - 8 * height, y2 + 8 * height, height)
    return min(_corners(around, box, label, size), key=cost)


def _corners(
    rows: Iterable[int], box: Rect, label: tuple[int, int], size: tuple[int, int]
) -> Iterator[tuple[int, int]]:
    """Upper left corners for a label beside, over or under its box, within the picture; the best liked first."""
    (x1, _, x2, _), (width, height) = box, label
    for y in rows:
        for x in (x1 - 1, x2 - width + 2, x2 + 2, x1 - width - 1, (x1 + x2 - width) // 2):
            yield max(0, min(x, size[0] - width)), max(0, min(y, size[1] - height))


def _strip(width: int, caption: str, entities: Sequence[Entity], note: str) -> Image.Image:
    """The caption on paper, its phrases on tabs of their colours, and the note below it."""
    lines = [
        *_lines(*_coloured(caption, entities), _font(width, 3), width - 2 * MARGIN, INK),
        *_lines(*_coloured(note, []), _font(width, -1), width - 2 * MARGIN, GREY),
    ]
    height = sum(line.height for line in lines)
    strip = Image.new("RGB", (width, height + MARGIN + 4 if lines else 0), PAPER)
    pen = ImageDraw.Draw(strip)
    top = MARGIN // 2 + 2
    for line in lines:
        line.draw(pen, MARGIN, top)
        top += line.height
    return strip


@dataclass(frozen=True, slots=True)
class _Line:
    """A line of text as runs of one colour; those with a colour stand on tabs."""

    runs: list[tuple[str, Colour | None]]
    font: Font
    ink: Colour

    @property
    def height(self) -> int:
        return round(self.font.size * 1.55)

    @property
    def width(self) -> float:
        return sum(self.font.getlength(text) + (2 * PAD if colour else 0) for text, colour in self.runs)

    def draw(self, pen: ImageDraw.ImageDraw, left: float, top: int) -> None:
        for text, colour in self.runs:
            pad, ink = (PAD, ink_on(colour)) if colour else (0, self.ink)
            right = left + self.font.getlength(text) + 2 * pad
            if colour:
                pen.rounded_rectangle((left, top - 1, right, top + self.font.size * 1.3), 3, fill=colour)
            pen.text((left + pad, top + self.font.size), text, font=self.font, fill=ink, anchor="ls")
            left = right


def _lines(text: str, colours: list[Colour | None], font: Font, width: int, ink: Colour) -> Iterator[_Line]:
    """The text in lines of at most this width."""

    def line(places: range) -> _Line:
        runs = groupby(places, key=colours.__getitem__)
        return _Line([("".join(text[place] for place in run), colour) for colour, run in runs], font, ink)

    longest = int(width / (1.2 * font.size))  # so many of the widest letters
    for places in wrapped(text, longest, lambda start, end: line(range(start, end)).width <= width):
        yield line(places)


def _coloured(text: str, entities: Sequence[Entity]) -> tuple[str, list[Colour | None]]:
    """The text in letters that the font has, with the colour of each: that of its phrase."""
    colours: list[Colour | None] = []
    for words, entity in pieces_of(text, entities):
        colours += [COLOURS[colour_number(entity)] if entity else None] * len(words)
    letters = placed_letters(text)
    return "".join(letter for letter, _ in letters), [colours[place] for _, place in letters]


def _font(width: int, step: int) -> Font:
    """The font for a canvas of this width, some pixels larger or smaller."""
    return font_of(max(14, width // 70) + step)


def _area(rect: Rect) -> int:
    return (rect[2] - rect[0]) * (rect[3] - rect[1])


def _overlap(one: Rect, other: Rect) -> int:
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    return max(0, width) * max(0, height)
