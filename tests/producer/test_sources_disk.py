"""Files, folders and globs: any name, one order, and only what is inside."""

import os
import shutil
import subprocess
import sys
import tempfile
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import producer.sources
from producer.sources import Filters, Skip
from producer.sources.disk import FolderSource
from producer.sources.filters import Glob
from schemas.errors import SourceError
from schemas.uris import file_uri, file_version, path_of

HOSTILE = [
    b"a b.jpg",
    b"a\nb.jpg",
    b"a+b.jpg",
    b"100%.jpg",
    b"a%20b.jpg",
    b"#1.jpg",
    b"what?.jpg",
    b"'single' \"double\".jpg",
    b"-rf.jpg",
    b"@list.jpg",
    b"a[1]*.jpg",
    b"back\\slash.jpg",
    b"\x1b[31mred.jpg",
    b"latin-1 \xe9\xff.jpg",
    unicodedata.normalize("NFC", "café.jpg").encode(),
    unicodedata.normalize("NFD", "café.jpg").encode(),
    "👩‍🚀.jpg".encode(),
    b"n" * 251 + b".jpg",
    b"dir.jpg/inner.jpg",
]


def test_every_hostile_name_is_listed_and_opens_the_file_that_bears_it(tree: Any, open_source: Any) -> None:
    root = tree(*HOSTILE)
    items = [found.item for found in open_source(root).list()]
    assert sorted(os.fsencode(path_of(item.uri).relative_to(root)) for item in items) == sorted(HOSTILE)
    for item in items:
        path = path_of(item.uri)
        assert path.read_bytes() == os.fsencode(path.relative_to(root))
        assert (item.version, item.size) == (file_version(path.stat()), path.stat().st_size)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_can_be_given_itself(name: bytes, tree: Any, open_source: Any, uris: Any) -> None:
    path = os.fsdecode(os.path.join(os.fsencode(tree(name)), name))
    source = open_source(path)
    assert uris(source) == [file_uri(path)]
    assert uris(open_source(source.spec)) == [file_uri(path)]
    source.spec.encode()  # any database holds it


def test_a_folder_is_sorted_by_bytes_and_depth_first(tree: Any, open_source: Any, uris: Any) -> None:
    root = tree("b.jpg", "a/z.jpg", "a/B/1.jpg", "a.jpg", "Z.jpg", "a-b.jpg", b"\xff.jpg", "é.jpg")
    names = ["Z.jpg", "a/B/1.jpg", "a/z.jpg", "a-b.jpg", "a.jpg", "b.jpg", "%C3%A9.jpg", "%FF.jpg"]
    assert uris(open_source(root)) == [f"{file_uri(root)}/{name}" for name in names]


def test_the_same_folder_has_one_spec(tree: Any, open_source: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tree("a.jpg")
    monkeypatch.chdir(root.parent)
    written = ["photos", "./photos/", f"{root}//", "photos/../photos", file_uri(root), f"/{root}"]
    assert {open_source(text).spec for text in written} == {str(root)}


TREES = st.sets(
    st.lists(st.sampled_from([b"a", b"b.jpg", b"b", b"c%.txt", b".h", b"\xff", b"a b"]), min_size=1, max_size=3).map(
        b"/".join
    ),
    max_size=12,
)


@settings(max_examples=60, deadline=None)
@given(names=TREES, names_at_once=st.integers(1, 4), glob=st.sampled_from([None, "**/*.jpg", "*/b*"]))
def test_a_restart_from_any_cursor_lists_the_rest(names: set[bytes], names_at_once: int, glob: str | None) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            path = Path(os.fsdecode(os.path.join(os.fsencode(folder), name)))
            if not path.is_dir() and not any(parent.is_file() for parent in path.parents):
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()
        pattern = Glob(glob) if glob else None
        at_once = list(FolderSource(folder, folder, Filters(), pattern).list())
        assert len({found.cursor for found in at_once}) == len(at_once)
        source = FolderSource(folder, folder, Filters(), pattern, names_at_once)
        for place in range(len(at_once) + 1):
            assert list(source.list(at_once[place - 1].cursor if place else None)) == at_once[place:]


def test_a_restart_goes_on_when_what_the_cursor_names_is_gone(tree: Any, open_source: Any, uris: Any) -> None:
    root = tree("a/1.jpg", "a/2.jpg", "b/1.jpg", "c.jpg")
    source = open_source(root)
    cursor = next(iter(source.list())).cursor
    shutil.rmtree(root / "a")
    assert [found.item.uri for found in source.list(cursor)] == uris(source)
    (root / "a").touch()
    assert [Path(found.item.uri).name for found in source.list(cursor)] == ["1.jpg", "c.jpg"]


def test_a_folder_is_read_only_when_its_turn_comes(tree: Any, open_source: Any) -> None:
    root = tree("a/1.jpg", "b/1.jpg", "c/1.jpg")
    listing = open_source(root).list()
    next(listing)
    shutil.rmtree(root / "b")
    tree("c/2.jpg")
    assert [found.item.uri[-7:] for found in listing] == ["c/1.jpg", "c/2.jpg"]


def test_a_large_folder_is_never_held_whole(tree: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tree(*(f"{number:04}.jpg" for number in range(1000)))
    source = FolderSource(str(root), str(root), Filters(), names_at_once=10)
    held = []
    page = source._page
    monkeypatch.setattr(source, "_page", lambda path, after: held.append(page(path, after)) or held[-1])
    assert len(list(source.list())) == 1000
    assert max(map(len, held)) == 10


def test_hidden_and_other_names_are_left_out_and_counted(tree: Any, open_source: Any, uris: Any, skips: Any) -> None:
    pictures, others = ["a.JPG", "scan", "x.unknown"], ["notes.TXT", "clip.Mp4", "photo.jpg.json"]
    root = tree(".DS_Store", ".git/objects/a.jpg", *pictures, *others)
    source = open_source(root)
    assert [uri.rpartition("/")[2] for uri in uris(source)] == pictures
    assert sorted(skips(source)) == ["HIDDEN"] * 2 + ["NOT_AN_IMAGE"] * 3
    assert len(uris(open_source(root, Filters(all_files=True)))) == 8


def test_a_file_that_is_named_is_taken_whatever_it_is(tree: Any, open_source: Any, uris: Any) -> None:
    root = tree(".hidden.txt")
    named = open_source(root / ".hidden.txt", Filters(include=("*.jpg",)))
    assert uris(named) == [file_uri(root / ".hidden.txt")]
    assert list(named.list("1")) == []


@pytest.mark.parametrize(
    ("filters", "taken"),
    [
        (Filters(include=("*.png",)), ["x/y/c.png", "x/b.png"]),
        (Filters(include=("x/*",)), ["x/b.png"]),
        (Filters(include=("x/**",)), ["x/y/c.png", "x/b.png"]),
        (Filters(include=("**/y/*", "a.*")), ["a.jpg", "x/y/c.png"]),
        (Filters(exclude=("x/",)), ["a.jpg"]),
        (Filters(exclude=("*.jpg",), include=("?.*",)), ["x/y/c.png", "x/b.png"]),
        (Filters(include=("[ab].*",)), ["a.jpg", "x/b.png"]),
    ],
)
def test_patterns_match_the_path_in_the_source_or_the_bare_name(
    filters: Filters, taken: list[str], tree: Any, open_source: Any, uris: Any, skips: Any
) -> None:
    root = tree("a.jpg", "x/b.png", "x/y/c.png")
    source = open_source(root, filters)
    assert sorted(uris(source)) == sorted(f"{file_uri(root)}/{name}" for name in taken)
    assert skips(source) == ["FILTERED"] * (3 - len(taken))


def test_a_glob_names_files_as_the_shell_would(tree: Any, open_source: Any, uris: Any, skips: Any) -> None:
    root = tree("a.jpg", "a.png", "x/b.jpg", "x/y/c.jpg", "x[1]/d.jpg", "x/.h/e.jpg", "z.jpg/inner.png")

    def names(pattern: str) -> list[str]:
        return [uri.removeprefix(file_uri(root) + "/") for uri in uris(open_source(root / pattern))]

    assert names("*.jpg") == ["a.jpg"]
    assert names("**/*.jpg") == ["a.jpg", "x/b.jpg", "x/y/c.jpg", "x%5B1%5D/d.jpg"]
    assert names("x/**") == ["x/b.jpg", "x/y/c.jpg"]
    assert names("x[1]/*.jpg") == ["x%5B1%5D/d.jpg"]
    assert names("?/*/*.jpg") == ["x/y/c.jpg"]
    assert skips(open_source(root / "x/**/*.jpg")) == ["HIDDEN"]


def test_a_glob_walks_only_where_something_can_match(tree: Any, open_source: Any, monkeypatch: Any) -> None:
    root = tree("a.jpg", "deep/er/b.jpg", "2024/c/d.jpg")
    visited = set()
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: visited.add(os.fsdecode(path)) or scandir(path))
    list(open_source(root / "*.jpg").list())
    assert visited == {f"{root}/"}
    list(open_source(root / "2*/*/*.jpg").list())
    assert visited == {f"{root}/", f"{root}/2024/", f"{root}/2024/c/"}


def test_links_are_followed_inside_the_source_only(tree: Any, open_source: Any, uris: Any, skips: Any) -> None:
    root = tree("a/1.jpg")
    secret = root.parent / "secret"
    secret.mkdir()
    (secret / "s.jpg").touch()
    (root / "beside").mkdir()
    (root.parent / "photos-2").mkdir()
    for name, target in {
        "in-file.jpg": "a/1.jpg",
        "in-folder": "a",
        "out-file.jpg": secret / "s.jpg",
        "out-folder": secret,
        "out-near": "../photos-2",
        "out-through": "in-folder/../../secret/s.jpg",
        "broken.jpg": "nowhere",
        "self.jpg": "self.jpg",
    }.items():
        (root / name).symlink_to(target)
    source = open_source(root)
    names = [uri.removeprefix(file_uri(root) + "/") for uri in uris(source)]
    assert names == ["a/1.jpg", "in-file.jpg", "in-folder/1.jpg"]
    assert sorted(skips(source)) == ["LINK_BROKEN"] * 2 + ["LINK_OUTSIDE"] * 4
    assert next(found.item for found in source.list() if found.item).version == file_version((root / "a/1.jpg").stat())


def test_loops_of_links_end(tree: Any, open_source: Any, uris: Any, skips: Any, restarts_anywhere: Any) -> None:
    root = tree(*(f"{number}/{number}.jpg" for number in range(8)))
    for one in range(8):
        (root / f"{one}/up").symlink_to("..")
        (root / f"{one}/here").symlink_to(".")
        for other in range(8):
            (root / f"{one}/to-{other}").symlink_to(f"../{other}")
    source = open_source(root)
    assert len(uris(source)) == 8 + 8 * 7
    assert set(skips(source)) == {"LINK_AGAIN"}
    (root / "all").symlink_to(root)
    restarts_anywhere(open_source(root / "3"))


def test_a_source_that_is_a_link_is_followed(tree: Any, open_source: Any, uris: Any) -> None:
    root = tree("a.jpg")
    link = root.parent / "link"
    link.symlink_to(root)
    assert uris(open_source(link)) == [file_uri(link / "a.jpg")]


def test_what_is_no_file_is_passed_over_without_opening_it(tree: Any, open_source: Any, skips: Any) -> None:
    root = tree("a.jpg")
    os.mkfifo(root / "pipe.jpg")
    assert skips(open_source(root)) == [Skip.NOT_A_FILE.name]
    with pytest.raises(SourceError, match="neither a file nor a folder"):
        open_source(root / "pipe.jpg")


def test_a_folder_below_that_cannot_be_read_is_counted(as_nobody: Path, open_source: Any, skips: Any) -> None:
    (as_nobody / "closed").mkdir(mode=0)
    (as_nobody / "a.jpg").touch()
    assert skips(open_source(as_nobody)) == ["UNREADABLE"]


def test_a_source_that_cannot_be_read_is_one_line(as_nobody: Path, open_source: Any) -> None:
    (as_nobody / "closed").mkdir(mode=0)
    with pytest.raises(SourceError, match=r"^cannot read the folder /.*/closed/: Permission denied; check"):
        open_source(as_nobody / "closed")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("nothing.jpg", r"nothing\.jpg: no such file or folder; check the path"),
        ("line\nbreak", r"line\\nbreak: no such file"),
        ("*.gif", r"\*\.gif: no file matches"),
        ("none/*.jpg", r"/none: no such folder; check the pattern"),
    ],
)
def test_what_is_not_there_is_one_line(spec: str, message: str, tree: Any, open_source: Any) -> None:
    with pytest.raises(SourceError, match=message) as caught:
        open_source(f"{tree('a.jpg')}/{spec}")
    assert str(caught.value).isprintable()


def test_what_may_not_be_seen_is_one_line(as_nobody: Path, open_source: Any) -> None:
    (as_nobody / "closed").mkdir(mode=0)
    with pytest.raises(SourceError, match=r"/closed/a\.jpg: Permission denied; check its permissions$"):
        open_source(as_nobody / "closed/a.jpg")


def test_a_broken_link_as_a_source_is_one_line(tmp_path: Path, open_source: Any) -> None:
    (tmp_path / "link").symlink_to("nowhere")
    with pytest.raises(SourceError, match=r"link is a broken link; make it point"):
        open_source(tmp_path / "link")


def test_a_folder_is_listed_without_loading_boto3(tree: Any) -> None:
    program = """if True:
        import sys
        from pathlib import Path
        from producer.sources import Filters, StorageOptions, open_sources
        open_sources([sys.argv[1]], Filters(), StorageOptions(), Path())
        print({"boto3", "botocore"} & {*sys.modules})
    """
    command = [sys.executable, "-c", program, str(tree("a.jpg"))]
    root = Path(producer.sources.__file__).parents[2]
    assert subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout == "set()\n"
