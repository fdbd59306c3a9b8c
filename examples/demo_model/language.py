"""What is asked about a scene, and the right answer, token by token."""

from dataclasses import dataclass

from drawing import COLOURS, SHAPES, Thing, location_indices
from numpy.random import Generator

BRIEF = "<grounding>An image of"
DETAILED = "<grounding>Describe this image in detail:"
NUMBERS = ("zero", "one", "two", "three", "four")
END = "</s>"


@dataclass(frozen=True, slots=True)
class Exchange:
    """A prompt, as people write it, and the tokens that answer it.

    Tokens, not text: the tokenizer puts a space after a tag, so "</object>," as text comes back as two words.
    """

    prompt: str
    answer: tuple[str, ...]


def words(text: str) -> list[str]:
    """The tokens of a text whose words are all in the vocabulary."""
    return ["▁" + word for word in text.split()]


def with_article(name: str) -> str:
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def box_tokens(things: list[Thing]) -> list[str]:
    """`<object>`, the corners of each thing, `</object>`; nothing for no things."""
    tokens: list[str] = []
    for thing in things:
        tokens += ["</delimiter_of_multi_objects/>"] if tokens else []
        tokens += [f"<patch_index_{index:04d}>" for index in location_indices(thing.box)]
    return ["<object>", *tokens, "</object>"] if tokens else []


def grounded(phrase: str, things: list[Thing]) -> list[str]:
    return ["<phrase>", *words(phrase), "</phrase>", *box_tokens(things)]


def caption(things: list[Thing], prompt: str = BRIEF) -> Exchange:
    """Every thing from left to right: `a red circle, a blue ring and a black cross.`; boxes if the prompt asks."""
    tokens = words("This is a picture of") if prompt == DETAILED else []
    for number, thing in enumerate(things):
        if number:
            tokens += words("and") if number == len(things) - 1 else [","]
        phrase = with_article(thing.name)
        tokens += grounded(phrase, [thing]) if prompt.startswith("<grounding>") else words(phrase)
    return Exchange(prompt, (*tokens, ".", END))


def phrase(text: str, things: list[Thing]) -> Exchange:
    """Where the phrase is. What is not there gets no box: the answer ends at once."""
    return Exchange(f"<grounding><phrase>{text}</phrase>", (*box_tokens(things), END))


def region(thing: Thing) -> Exchange:
    """What is in a box."""
    prompt = "<grounding><phrase>It</phrase>" + "".join(box_tokens([thing])) + " is"
    return Exchange(prompt, (*words(with_article(thing.name)), ".", END))


def question(text: str, answer: list[str]) -> Exchange:
    return Exchange(f"<grounding>Question: {text} Answer:", (*answer, ".", END))


def count_question(things: list[Thing]) -> Exchange:
    return question("How many shapes are there?", words(NUMBERS[len(things)]))


def colour_questions(things: list[Thing]) -> list[Exchange]:
    """`What colour is the ring?`, for each shape that is there once."""
    shapes = [thing.shape for thing in things]
    return [question(f"What colour is the {t.shape}?", words(t.colour)) for t in things if shapes.count(t.shape) == 1]


def shape_questions(things: list[Thing]) -> list[Exchange]:
    """`Which shape is red?`, for each colour that is there once; the answer has its box."""
    colours = [thing.colour for thing in things]
    return [
        question(f"Which shape is {t.colour}?", grounded(f"the {t.shape}", [t]))
        for t in things
        if colours.count(t.colour) == 1
    ]


def absent_names(things: list[Thing]) -> list[str]:
    present = {thing.name for thing in things}
    return [name for colour in COLOURS for shape in SHAPES if (name := f"{colour} {shape}") not in present]


def absent_name(rng: Generator, things: list[Thing]) -> str:
    """A name that nothing in the scene has; half the time its colour or its shape is there, which is harder."""
    names = absent_names(things)
    parts = {part for thing in things for part in (thing.colour, thing.shape)}
    near = [name for name in names if parts.intersection(name.split())]
    return str(rng.choice(near if rng.random() < 0.5 else names))
