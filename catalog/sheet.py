"""Many pictures with their boxes on one sheet."""

from collections.abc import Sequence

from PIL import Image

from catalog.drawing import STAGE

COLUMNS, GAP = 4, 12
TILE = (480, 320)
"""The width of each picture, and its height where there is none to see."""


def sheet_of(pictures: Sequence[Image.Image]) -> Image.Image:
    """The pictures, of one width, in rows of `COLUMNS`; each row as high as its highest."""
    columns = min(COLUMNS, len(pictures))
    rows = [pictures[start : start + columns] for start in range(0, len(pictures), columns)]
    heights = [max(picture.height for picture in row) for row in rows]
    width = max(picture.width for picture in pictures)
    size = (GAP + columns * (width + GAP), GAP + sum(height + GAP for height in heights))
    sheet = Image.new("RGB", size, STAGE)
    top = GAP
    for row, height in zip(rows, heights, strict=True):
        for column, picture in enumerate(row):
            sheet.paste(picture, (GAP + column * (width + GAP), top))
        top += height + GAP
    return sheet
