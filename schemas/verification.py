"""Verification: what a recipe asks the model about its own boxes. Its names are part of the recipe."""

from typing import Final, Literal

PHRASES: Final = "phrases-1"
"""Each phrase is grounded again on its own, each box is named again, and something is asked for that is not there."""
MIRROR: Final = "mirror-1"
"""All that, and each phrase is grounded on the mirrored image as well."""
Manner = Literal["", "phrases-1", "mirror-1"]
"""The number rises when the same manner would give other figures."""

ABSENT = (
    *("a giraffe", "a submarine", "an accordion", "a penguin", "a cactus", "a helicopter", "a chessboard", "a camel"),
    *(
        "a lighthouse",
        "an octopus",
        "a snowmobile",
        "a typewriter",
        "a windmill",
        "a kangaroo",
        "a harp",
        "a bulldozer",
    ),
    *(
        "a hot air balloon",
        "a tractor",
        "a microscope",
        "a parachute",
        "a violin",
        "a walrus",
        "a telescope",
        "a pyramid",
    ),
)
"""What is asked for though it is not there: things that hardly anybody photographs, and that nobody takes for another.

One that the caption speaks of is passed over."""
ABSENT_DRAWINGS = tuple(
    f"{'an' if colour[0] in 'aeiou' else 'a'} {colour} {shape}"
    for shape in ("circle", "square", "triangle", "cross", "ring")
    for colour in ("red", "green", "blue", "yellow", "orange", "purple", "white", "black")
)
"""The same for the demo model, which knows no other things."""
