"""Finding pictures by what is said of them, and by what lies where in them."""

from base64 import urlsafe_b64encode
from typing import Any

import pytest

from catalog.cursors import packed
from catalog.reader import Reader
from catalog.records import records_of
from catalog.search import Page, Search, cursor_of, find_page, matches_of
from schemas.errors import Code, UsageError
from tests.catalog.conftest import Picture, Shelve, Thing, all_records

LEFT, RIGHT, MIDDLE = (0.0, 0.4, 0.3, 0.6), (0.7, 0.4, 1.0, 0.6), (0.4, 0.4, 0.6, 0.6)
TOP, BOTTOM = (0.4, 0.0, 0.6, 0.2), (0.4, 0.8, 0.6, 1.0)
SMALL, LARGE = (0.45, 0.45, 0.55, 0.55), (0.1, 0.1, 0.9, 0.9)


LARGE_CURSOR = packed([2**70, 1])
DEEP_CURSOR = urlsafe_b64encode(b"[" * 9000).decode()


@pytest.fixture
def archive(shelve: Shelve) -> None:
    """Seven pictures of two jobs."""
    shelve(
        "zoo",
        Picture("s3://zoo/1", [Thing("A brown dog", [LEFT], 0.9), Thing("a man", [RIGHT], 0.4)]),
        Picture("s3://zoo/2", [Thing("two dogs", [LEFT, RIGHT], 0.3), Thing("the grass", [LARGE])]),
        Picture("s3://zoo/3", [Thing("a man", [LARGE], 0.8), Thing("a dog", [SMALL], 0.7)]),
        Picture(
            "s3://zoo/4", [Thing("a dog house", [TOP]), Thing("snow", [BOTTOM])], "A dog house; it snowed, 50%_off"
        ),
        Picture("s3://zoo/5", code=Code.TRUNCATED),
    )
    shelve("farm", Picture("s3://farm/1", [Thing("a cat", [MIDDLE])]), model="other", task="detailed")
    shelve("farm", Picture("s3://farm/2", [Thing("dog", [LEFT], 0.2, valid=False)]), model="other", task="detailed")


def uris(reader: Reader, **asked: Any) -> list[str]:
    """What a search finds, without s3://, the farm's last."""
    search = Search(**asked)
    found = find_page(reader, search, limit=100)
    assert found.cursor == ""
    assert [record.uri for record in all_records(reader, search, at_once=1)] == [
        record.uri for record in records_of(reader, found.hits)
    ]
    names = [record.uri.removeprefix("s3://") for record in records_of(reader, found.hits)]
    return sorted(names, key=lambda name: (name.startswith("farm"), name))


@pytest.mark.usefixtures("archive")
@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ({}, "zoo/1 zoo/2 zoo/3 zoo/4 farm/1 farm/2"),
        ({"job": "farm"}, "farm/1 farm/2"),
        ({"task": "brief"}, "zoo/1 zoo/2 zoo/3 zoo/4"),
        ({"model": "other", "task": "detailed"}, "farm/1 farm/2"),
        ({"model": "nobody"}, ""),
        # phrases
        ({"phrases": ("dog",)}, "zoo/1 zoo/2 zoo/3 farm/2"),
        ({"phrases": ("dogs",)}, "zoo/1 zoo/2 zoo/3 farm/2"),
        ({"phrases": ("=dog",)}, "zoo/3 farm/2"),
        ({"phrases": ("the Brown  dog",)}, "zoo/1"),
        ({"phrases": ("dog*",)}, "zoo/3 zoo/4 farm/2"),
        ({"phrases": ("dog h*",)}, "zoo/4"),
        ({"phrases": ("d_g*",)}, ""),
        ({"phrases": ("dog", "man")}, "zoo/1 zoo/3"),
        ({"phrases": ("man", "dog")}, "zoo/1 zoo/3"),
        ({"phrases": ("dog", "cat")}, ""),
        ({"phrases": ("dog",), "job": "zoo"}, "zoo/1 zoo/2 zoo/3"),
        ({"phrases": ("dog*",), "min_score": 0.5}, "zoo/3 zoo/4"),
        ({"phrases": ("dog*",), "place": "top"}, "zoo/4"),
        ({"phrases": ("dog*",), "relations": (("above", "snow"),)}, "zoo/4"),
        ({"phrases": ("man", "dog*"), "min_score": 0.75}, "zoo/3"),
        # words
        ({"text": "dogs"}, "zoo/1 zoo/2 zoo/3 zoo/4 farm/2"),
        ({"text": "dog -man"}, "zoo/2 zoo/4 farm/2"),
        ({"text": "snowing"}, "zoo/4"),
        ({"text": "gra*"}, "zoo/2"),
        ({"text": "dog can*"}, ""),
        ({"text": "dog under"}, "zoo/1 zoo/2 zoo/3 zoo/4 farm/2"),
        ({"text": '"brown dog"'}, "zoo/1"),
        ({"text": '"dog brown"'}, ""),
        ({"text": "man of the dog"}, "zoo/1 zoo/3"),
        ({"text": "50%_off"}, "zoo/4"),
        ({"text": "man", "phrases": ("dog",)}, "zoo/1 zoo/3"),
        ({"text": "snow", "phrases": ("dog",)}, ""),
        ({"text": "image", "phrases": ("dogs", "man")}, "zoo/1 zoo/3"),
        ({"text": "image", "phrases": ("dog*",)}, "zoo/3 farm/2"),
        ({"text": "image", "phrases": ("brown dog",)}, "zoo/1"),
        ({"text": "snow", "phrases": ("dog hous*",)}, "zoo/4"),
        ({"text": "50%", "phrases": ("dog ho*",)}, "zoo/4"),
        ({"text": "image", "relations": (("left_of", "men"),)}, "zoo/1"),
        # boxes
        ({"phrases": ("dog",), "min_score": 0.5}, "zoo/1 zoo/3"),
        ({"phrases": ("dog",), "max_score": 0.5}, "zoo/2"),
        ({"phrases": ("man", "dog"), "min_score": 0.5}, "zoo/3"),
        ({"min_score": 0.85}, "zoo/1"),
        ({"phrases": ("dog",), "max_area": 0.02}, "zoo/3"),
        ({"min_area": 0.5, "text": "man"}, "zoo/3"),
        ({"phrases": ("dog",), "place": "left"}, "zoo/1 zoo/2"),
        ({"phrases": ("dog",), "place": "center"}, "zoo/3"),
        ({"place": "top"}, "zoo/4"),
        ({"place": "top-left"}, ""),
        # how they lie
        ({"phrases": ("dog",), "relations": (("left_of", "man"),)}, "zoo/1"),
        ({"phrases": ("man",), "relations": (("left_of", "dog"),)}, ""),
        ({"phrases": ("man",), "relations": (("right_of", "dog"),)}, "zoo/1"),
        ({"phrases": ("dog",), "relations": (("inside", "man"),)}, "zoo/3"),
        ({"phrases": ("dog",), "relations": (("overlaps", "man"),)}, "zoo/3"),
        ({"phrases": ("dog",), "relations": (("left_of", "dog"),)}, "zoo/2"),
        ({"relations": (("above", "snow"),)}, "zoo/4"),
        ({"phrases": ("snow",), "relations": (("below", "dog hou*"),)}, "zoo/4"),
        ({"phrases": ("dog",), "relations": (("near", "man"),)}, "zoo/3"),
        ({"phrases": ("dog",), "relations": (("left_of", "man"),), "min_score": 0.95}, ""),
    ],
)
def test_search_finds_what_has_all_that_is_asked(reader: Reader, asked: dict[str, Any], found: str) -> None:
    assert uris(reader, **asked) == found.split()


@pytest.mark.usefixtures("archive")
def test_pages_follow_one_another_without_gap_or_overlap(reader: Reader) -> None:
    prefix = Search(phrases=("dog*",), max_score=0.8)
    for search in (Search(), Search(phrases=("dog",)), prefix, Search(text="dog"), Search(job="zoo")):
        whole = find_page(reader, search, limit=100).hits
        pages, page = [], Page([])
        while not pages or page.cursor:
            page = find_page(reader, search, limit=2, after=page.cursor)
            pages.append(page.hits)
        assert [hit for hits in pages for hit in hits] == list(whole)
        assert all(len(hits) == 2 for hits in pages[:-1])


@pytest.mark.usefixtures("archive")
@pytest.mark.parametrize(
    "search",
    [
        Search(),
        Search(phrases=("dog",)),
        Search(phrases=("dog*",)),
        Search(phrases=("d*",), min_score=0.4),
        Search(text="dog"),
        Search(relations=(("near", "man"),)),
    ],
)
def test_search_goes_both_ways_from_each_hit(reader: Reader, search: Search) -> None:
    whole = list(find_page(reader, search, limit=100).hits)
    assert len(whole) > 0
    for place, hit in enumerate(whole):
        here = cursor_of(reader, search, hit)
        assert list(find_page(reader, search, limit=100, after=here).hits) == whole[place + 1 :]
        assert list(find_page(reader, search, limit=100, after=here, backwards=True).hits) == whole[:place][::-1]
        assert find_page(reader, search, limit=1, after=here, backwards=True).hits == whole[:place][-1:]


def test_an_annotation_of_many_images_is_found_at_each_of_them(reader: Reader, shelve: Shelve) -> None:
    """The same bytes under three names, in two jobs; one name in both of them comes once, with the newest job."""
    cat = [Thing("a cat")]
    shelve("one", *(Picture(f"s3://b/{number}", cat, content="same") for number in range(3)))
    shelve("two", *(Picture(f"s3://b/{number}", cat, content="same") for number in range(2, 4)))
    search = Search(phrases=("cat",))
    records = sorted(all_records(reader, search, at_once=2), key=lambda record: record.uri)
    assert [(record.uri, record.job) for record in records] == [
        ("s3://b/0", "one"),
        ("s3://b/1", "one"),
        ("s3://b/2", "two"),
        ("s3://b/3", "two"),
    ]
    assert len({record.annotation_id for record in records}) == 1
    assert {record.uri for record in all_records(reader, Search(job="one"))} == {"s3://b/0", "s3://b/1", "s3://b/2"}


def test_a_record_has_all_that_was_found(reader: Reader, shelve: Shelve) -> None:
    shelve("zoo", Picture("s3://zoo/1", [Thing("The dogs", [LEFT, RIGHT], 0.9), Thing("grass", [])], size=(100, 50)))
    (record,) = all_records(reader, Search())
    assert (record.job, record.uri, record.task, record.model, record.format) == (
        "zoo",
        "s3://zoo/1",
        "brief",
        "null",
        "JPEG",
    )
    dogs, grass = record.entities
    assert record.caption[dogs.start : dogs.end] == dogs.phrase == "The dogs"
    assert (dogs.phrase_norm, dogs.head, dogs.score, len(dogs.boxes)) == ("dogs", "dog", 0.9, 2)
    assert dogs.boxes[1].pixels(record.width, record.height) == (70, 20, 100, 30)
    assert dogs.boxes[0].valid
    assert list(grass.boxes) == []


@pytest.mark.usefixtures("archive")
def test_matches_are_the_boxes_that_an_image_was_found_for(reader: Reader) -> None:
    def boxes(**asked: Any) -> set[tuple[int, int]]:
        search = Search(**asked)
        hits = find_page(reader, search, limit=1).hits
        return {(match.entity, match.box) for match in matches_of(reader, search, {hit.annotation_id for hit in hits})}

    assert boxes(phrases=("dog",), place="right") == {(0, 1)}
    assert boxes(phrases=("dog",), relations=(("left_of", "man"),)) == {(0, 0), (1, 0)}
    assert boxes(phrases=("dog",), relations=(("left_of", "dog"),)) == {(0, 0), (0, 1)}
    assert boxes(phrases=("man",), min_score=0.35, relations=(("right_of", "dog"),)) == {(0, 0), (1, 0)}
    assert boxes(text="dog") == set()
    assert boxes(min_score=0.85) == {(0, 0)}


@pytest.mark.usefixtures("archive")
@pytest.mark.parametrize(
    "asked",
    [
        {"relations": (("under", "dog"),)},
        {"place": "middle"},
        {"phrases": (" ",)},
        {"phrases": ("*",)},
        {"phrases": ("=",)},
        {"phrases": ("!",)},
        {"phrases": ("the *",)},
        {"relations": (("near", ""),)},
        {"text": "-dog"},
        {"text": "the"},
        {"text": "under"},
        {"text": "a\0b"},
        {"phrases": ("=\udcff",)},
        {"relations": (("near", "\0"),)},
        {"job": "a\0"},
        {"text": "!?"},
        {"job": "nobody's"},
    ],
)
def test_what_cannot_be_looked_for_is_told_in_one_line(reader: Reader, asked: dict[str, Any]) -> None:
    with pytest.raises(UsageError) as caught:
        find_page(reader, Search(**asked), limit=1)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text", ["a'b", 'a"b', "a:b*c", "(a", "a & b | !c", "NEAR(a b)", "a^2 {b} \\", "ünïcode 漢字", "--", "%s"]
)
def test_no_text_is_an_error_of_the_database(reader: Reader, shelve: Shelve, text: str) -> None:
    shelve("job", Picture("s3://b/1", [Thing("a cat")]))
    for asked in ({"text": f"cat {text}"}, {"phrases": (f"cat {text}",)}, {"phrases": (f"{text}*",)}):
        assert len(find_page(reader, Search(**asked), limit=2).hits) <= 1  # type: ignore[arg-type]


def test_an_image_with_two_phrases_that_begin_alike_comes_once(reader: Reader, shelve: Shelve) -> None:
    cats = [Picture(f"s3://b/{n}", [Thing(f"cat {n % 2}"), Thing("cat"), Thing("a cat toy")]) for n in range(5)]
    shelve("job", *cats, Picture("s3://b/dog", [Thing("Cäsar"), Thing("caz")]))
    for at_once in (1, 2, 10):
        found = [record.uri for record in all_records(reader, Search(phrases=("cat*",)), at_once=at_once)]
        assert sorted(found) == sorted(picture.uri for picture in cats)
    assert len(all_records(reader, Search(phrases=("c*",)), at_once=2)) == 6


def test_every_image_comes_though_many_share_what_it_is_found_by(reader: Reader, shelve: Shelve) -> None:
    """Each of ten images has five phrases of one head, in three jobs: 150 rows for ten images."""
    dogs = [Thing(f"{word} dog") for word in ("big", "red", "old", "new", "shy")]
    for job in ("one", "two", "three"):
        shelve(job, *(Picture(f"s3://b/{number}", dogs, content="same") for number in range(10)))
    for at_once in (1, 3, 10):
        assert len(all_records(reader, Search(phrases=("dog",)), at_once=at_once)) == 10
        assert len(all_records(reader, Search(), at_once=at_once)) == 10


@pytest.mark.parametrize(
    "cursor", ["x", "WzFd", "WzEsMl0x", "WyJhIiwgMV0", "ü", "WyIiLCAxLCAyXQ", LARGE_CURSOR, DEEP_CURSOR]
)
def test_a_cursor_that_is_none_is_refused(reader: Reader, cursor: str) -> None:
    with pytest.raises(UsageError, match="no cursor"):
        find_page(reader, Search(), limit=1, after=cursor)


def test_an_image_of_many_dogs_in_two_jobs_is_found_once(shelve: Shelve, reader: Reader) -> None:
    for job in ("one", "two"):
        shelve(job, *(Picture(f"s3://x/{n}", [Thing("a dog"), Thing("a big dog"), Thing("dogs")]) for n in range(5)))
    for search in (Search(phrases=("dog",)), Search(), Search(text="dog"), Search(min_area=0.1)):
        for at_once in (1, 2, 50):
            found = [record.uri for record in all_records(reader, search, at_once=at_once)]
            assert sorted(found) == [f"s3://x/{n}" for n in range(5)]


def test_a_cursor_of_half_a_character_is_refused(reader: Reader) -> None:
    with pytest.raises(UsageError, match="no cursor"):
        find_page(reader, Search(phrases=("dog*",)), limit=1, after=packed(["\ud800", 0, 0]))


def test_an_image_is_found_by_the_first_phrase_that_is_as_it_should_be(reader: Reader, shelve: Shelve) -> None:
    """Given images with two phrases that begin alike, then each comes once, by whichever has the box that is asked."""
    low, high = Thing("a dog", [LEFT], 0.3), Thing("a dog house", [RIGHT], 0.9)
    shelve("job", *(Picture(f"s3://b/{n}", [low, high] if n % 2 else [high, low]) for n in range(4)))
    for asked, number in (
        ({"min_score": 0.6}, 4),
        ({"max_score": 0.6}, 4),
        ({"place": "right"}, 4),
        ({"min_area": 0.5}, 0),
    ):
        search = Search(phrases=("dog*",), **asked)  # type: ignore[arg-type]
        assert len(all_records(reader, search, at_once=1)) == number


def test_words_with_signs_between_them_are_found_together_and_apart(reader: Reader, shelve: Shelve) -> None:
    things = [Thing("a black t-shirt"), Thing("a black/white dog"), Thing("the no. 5 bus")]
    shelve("job", Picture("s3://b/1", things, "A man in a black t-shirt, a black/white dog; the no. 5 bus at st.pauli"))
    for text in (
        '"black t-shirt"',
        "shirt",
        '"white dog"',
        '"black white dog"',
        "st.pauli",
        "pauli",
        '"5 bus"',
        "t-shir*",
    ):
        assert len(find_page(reader, Search(text=text), limit=2).hits) == 1, text
    for phrase in ("black t-shirt", "black/white dog", "no. 5 bus", "no. 5*"):
        assert len(find_page(reader, Search(text="man", phrases=(phrase,)), limit=2).hits) == 1, phrase


def test_a_version_that_is_no_more_is_not_found(reader: Reader, shelve: Shelve) -> None:
    shelve("job", Picture("s3://b/1", [Thing("a dog")], content="old"), Picture("s3://b/2", [Thing("a dog")]))
    shelve("job", Picture("s3://b/1", [Thing("a cat")], content="new", version="w"))
    for search in (
        Search(phrases=("dog",)),
        Search(text="dog"),
        Search(phrases=("dog*",)),
        Search(phrases=("dog",), job="job"),
    ):
        assert [record.uri for record in all_records(reader, search)] == ["s3://b/2"]
    assert sorted(record.caption for record in all_records(reader, Search())) == [
        "An image of a cat",
        "An image of a dog",
    ]
