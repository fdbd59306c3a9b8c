"""Manifests and standard input: every row is an item or is counted, and a broken file says where."""

import csv
import gzip
import io
import json
import os
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from producer.sources import Filters, Skip, StorageOptions, open_sources
from producer.sources.manifest import ManifestSource
from schemas.errors import KosmographError, SourceError, UsageError
from schemas.uris import file_uri

ROWS = ["a.jpg", " b c.jpg", "#1.jpg", "s3://bucket/a//b%20c+?.jpg", "/x/é.jpg", "file:///x/%FF.jpg", "../up.jpg"]


def expected(folder: Path) -> list[str]:
    return [
        file_uri(folder / "a.jpg"),
        file_uri(folder / " b c.jpg"),
        file_uri(folder / "#1.jpg"),
        "s3://bucket/a//b%20c+?.jpg",
        "file:///x/%C3%A9.jpg",
        "file:///x/%FF.jpg",
        file_uri(folder.parent / "up.jpg"),
    ]


def write(path: Path, rows: list[Any]) -> Path:
    """The rows in the format that the name tells."""
    kinds = {
        ".txt": lambda: "".join(f"{row}\n" for row in rows),
        ".csv": lambda: "id,uri\n" + "".join(f'{n},"{row}"\n' for n, row in enumerate(rows)),
        ".jsonl": lambda: "".join(json.dumps({"uri": row, "id": 1}) + "\n" for row in rows),
    }
    kind = "".join(path.suffixes)
    if kind == ".parquet":
        pq.write_table(pa.table({"id": range(len(rows)), "uri": pa.array(rows, pa.string())}), path)
    elif kind.endswith(".gz"):
        path.write_bytes(gzip.compress(kinds[path.suffixes[0]]().encode()))
    else:
        path.write_text(kinds[kind](), encoding="utf-8")
    return path


def opened(path: Path) -> ManifestSource:
    return ManifestSource(path, f"@{path}", Filters())


@pytest.mark.parametrize("kind", [".txt", ".csv", ".jsonl", ".parquet", ".txt.gz", ".csv.gz", ".jsonl.gz"])
def test_each_format_gives_the_same_items(
    kind: str, tmp_path: Path, open_source: Any, uris: Any, restarts_anywhere: Any
) -> None:
    path = write(tmp_path / f"list{kind}", ROWS)
    source = open_source(f"@{path}")
    assert uris(source) == expected(tmp_path)
    assert source.spec == f"@{path}"
    assert uris(open_source(source.spec)) == expected(tmp_path)
    restarts_anywhere(source)


def test_a_manifest_is_found_from_the_working_directory(
    tmp_path: Path, open_source: Any, uris: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lists").mkdir()
    path = write(tmp_path / "lists/list.txt", ["a.jpg"])
    monkeypatch.chdir(tmp_path)
    source = open_source("@lists/../lists/list.txt")
    assert (source.spec, uris(source)) == (f"@{path}", [file_uri(tmp_path / "lists/a.jpg")])


@settings(max_examples=30, deadline=None)
@given(rows=st.lists(st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), min_size=1), max_size=8))
def test_any_rows_are_the_same_in_every_format_that_quotes(rows: list[str], tmp_path_factory: Any) -> None:
    folder = tmp_path_factory.mktemp("rows")
    rows = [row.replace('"', "'") for row in rows]
    listings = [list(opened(write(folder / f"list{kind}", rows)).list()) for kind in (".csv", ".jsonl", ".parquet")]
    assert listings[0] == listings[1] == listings[2]
    assert len(listings[0]) == len(rows)


def test_a_text_line_is_the_name_itself(tmp_path: Path, uris: Any) -> None:
    path = tmp_path / "list.txt"
    path.write_bytes(b"\xef\xbb\xbf# no comment.jpg\r\n\n  \ncaf\xe9.jpg\nlast")
    names = [b"# no comment.jpg", b"caf\xe9.jpg", b"last"]
    assert uris(opened(path)) == [file_uri(os.fsencode(tmp_path) + b"/" + name) for name in names]


def test_a_quoted_newline_is_part_of_the_name(tmp_path: Path, uris: Any, restarts_anywhere: Any) -> None:
    path = tmp_path / "list.csv"
    path.write_text('URI ,note\n"a\nb.jpg",\n\nc.jpg\n"say ""hi"".jpg",x,y\n')
    assert uris(opened(path)) == [file_uri(tmp_path / name) for name in ("a\nb.jpg", "c.jpg", 'say "hi".jpg')]
    restarts_anywhere(opened(path))


def test_a_row_that_can_never_be_read_is_an_item_that_will_fail_under_its_name(tmp_path: Path, uris: Any) -> None:
    rows = ["ftp://host/a.jpg", "https://host/a.jpg", "file://host/a.jpg", "file:///a%00b.jpg", "s3://", "s3://bucket/"]
    assert uris(opened(write(tmp_path / "list.jsonl", rows))) == rows


def test_a_row_without_a_usable_uri_is_counted(tmp_path: Path, uris: Any, skips: Any) -> None:
    jsonl = tmp_path / "list.jsonl"
    rows = [
        {"uri": "a.jpg"},
        {"url": "b.jpg"},
        {"uri": None},
        {"uri": 5},
        {"uri": " "},
        {"uri": "a\0"},
        {"uri": "\ud800"},
    ]
    jsonl.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert (len(uris(opened(jsonl))), skips(opened(jsonl))) == (1, ["UNUSABLE"] * 6)
    commas = tmp_path / "list.csv"
    commas.write_text("id,uri\n1,a.jpg\n2\n3,\n")
    assert (len(uris(opened(commas))), skips(opened(commas))) == (1, ["UNUSABLE"] * 2)
    parquet = write(tmp_path / "list.parquet", ["a.jpg", None, ""])
    assert (len(uris(opened(parquet))), skips(opened(parquet))) == (1, ["UNUSABLE"] * 2)
    text = tmp_path / "list.txt"
    text.write_bytes(b"a.jpg\ns3://bucket/\xff\na\0b\n")
    assert (len(uris(opened(text))), skips(opened(text))) == (1, ["UNUSABLE"] * 2)


def test_patterns_match_a_row_as_it_is_written(tmp_path: Path, open_source: Any, uris: Any, skips: Any) -> None:
    path = write(tmp_path / "list.txt", ["x/a.jpg", "x/b.txt", "s3://bucket/y/c.png"])
    source = open_source(f"@{path}", Filters(include=("x/*", "bucket/**"), exclude=("a.*",)))
    assert uris(source) == [file_uri(tmp_path / "x/b.txt"), "s3://bucket/y/c.png"]
    assert skips(source) == ["FILTERED"]


def test_a_parquet_restart_does_not_decode_what_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("producer.sources.manifest.PARQUET_ROWS", 10)
    source = opened(write(tmp_path / "list.parquet", [f"{number}.jpg" for number in range(95)]))
    everything = list(source.list())
    assert [found.cursor for found in everything] == [str(number) for number in range(1, 96)]
    for done in (1, 9, 10, 11, 90, 94, 95):
        assert list(source.list(str(done))) == everything[done:]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("list.xlsx", b"", r"a manifest is \.txt, \.csv, \.jsonl"),
        ("list", b"", r"a manifest is \.txt"),
        ("list.csv", b"id,url\n1,a.jpg\n", r"no column 'uri'; rename one of its columns: id, url$"),
        ("list.csv", b"", r"no column 'uri'; rename one of its columns: none$"),
        ("list.csv", b"\x1b[31m\n", r"columns: \\x1b\[31m$"),
        ("list.csv", b"7,https://host/a?sig=secret\n", r"columns: 7, https://host/a\?sig=\*\*\*$"),
        ("list.csv", b'uri\n"a.jpg"x\n', r"line 2: broken CSV .*; repair the line"),
        ("list.csv", b'uri\n"a.jpg\nb.jpg\n', r"line 3: broken CSV"),
        ("list.jsonl", b'{"url": "a.jpg", "id": 1}\n', r"no column 'uri'; rename one of its columns: url, id$"),
        ("list.jsonl", b"{\n", r"line 1: broken JSON; repair the line"),
        ("list.jsonl", b'"a.jpg"\n', r"line 1: not a JSON object; a line is like"),
        ("list.jsonl", b"[" * 60_000, r"line 1: broken JSON"),
        ("list.txt", b"a" * 70_000, r"a line of more than 65,536 bytes; is it"),
        ("list.txt", "a.jpg\n".encode("utf-16"), r"is in UTF-16; save it as UTF-8"),
        ("list.txt.gz", b"not gzip", r"the file is damaged; check it"),
        ("list.txt.gz", gzip.compress(b"a.jpg\n" * 1000, mtime=0)[:-12], r"the file is damaged; check it"),
        ("list.parquet", b"PAR1 not really", r"not a sound Parquet file; write it again"),
        ("list.parquet", b"", r"not a sound Parquet file; write it again"),
    ],
)
def test_a_broken_manifest_is_one_line(
    name: str, content: bytes, message: str, tmp_path: Path, open_source: Any
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(KosmographError, match=message) as caught:
        list(open_source(f"@{tmp_path / name}").list())
    assert str(caught.value).isprintable()


def test_a_line_that_breaks_later_is_told_with_its_number(tmp_path: Path, open_source: Any) -> None:
    path = tmp_path / "list.jsonl"
    path.write_text('{"uri": "a.jpg"}\n\n{"uri": "b.j')
    source = open_source(f"@{path}")
    with pytest.raises(SourceError, match=r"list\.jsonl, line 3: broken JSON"):
        list(source.list())


def test_a_parquet_file_without_the_column_names_those_it_has(tmp_path: Path, open_source: Any) -> None:
    pq.write_table(pa.table({"url": ["a.jpg"], "id": [1]}), tmp_path / "list.parquet")
    with pytest.raises(SourceError, match=r"no column 'uri'; rename one of its columns: url, id"):
        open_source(f"@{tmp_path / 'list.parquet'}")


def test_without_pyarrow_the_extra_is_named(tmp_path: Path, open_source: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "list.parquet", ["a.jpg"])
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(SourceError, match=r"pip install 'kosmograph\[export\]'"):
        open_source(f"@{path}")


def test_a_missing_manifest_is_one_line(tmp_path: Path, open_source: Any) -> None:
    with pytest.raises(SourceError, match=r"list\.txt: No such file or directory; check it"):
        open_source(f"@{tmp_path / 'list.txt'}")


@pytest.mark.parametrize("spec", ["@", "@s3://bucket/list.txt", "@https://host/list.txt"])
def test_a_manifest_that_is_not_on_disk_is_refused(spec: str, open_source: Any) -> None:
    with pytest.raises(UsageError, match="a manifest is a file on disk"):
        open_source(spec)


SOURCES = ["", "http://host/a.jpg", "https://u:secret@host/a", "ftp://host/a", "file://host/a"]
SOURCES += ["@https://u:secret@host/a.csv", "@https://host/a.csv?X-Amz-Signature=secret", " https://u:secret@host/a"]


@pytest.mark.parametrize("spec", SOURCES)
def test_a_source_of_no_known_kind_is_refused(spec: str, open_source: Any) -> None:
    with pytest.raises(UsageError, match=r"; (name|download|write)|a source is") as caught:
        open_source(spec)
    assert "secret" not in str(caught.value)


class Standard:
    """Standard input that holds these bytes."""

    def __init__(self, content: bytes) -> None:
        self.buffer = io.BytesIO(content)

    def isatty(self) -> bool:
        return False


def test_standard_input_is_kept_and_read_again(
    tmp_path: Path, open_source: Any, uris: Any, restarts_anywhere: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    content = b"a b.jpg\n\ns3://bucket/x%.jpg\ncaf\xe9.jpg\nhttps://u:secret@host/\xff\n"
    monkeypatch.setattr(sys, "stdin", Standard(content))
    source = open_source("-")
    wanted = [file_uri(tmp_path / "a b.jpg"), "s3://bucket/x%.jpg", file_uri(os.fsencode(tmp_path) + b"/caf\xe9.jpg")]
    assert uris(source) == wanted
    assert [found.skip for found in source.list()] == [None, None, None, Skip.UNUSABLE]
    restarts_anywhere(source)

    monkeypatch.setattr(sys, "stdin", Standard(content))
    assert open_source("-").spec == source.spec
    assert len(source.spec) == len("stdin:") + 16
    (kept,) = (tmp_path / "spool").iterdir()
    assert kept.name == f"stdin-{source.spec[6:]}.txt"
    assert b"secret" not in kept.read_bytes()

    monkeypatch.chdir("/")  # the same relative names are other files here, but the source is what it was
    assert uris(open_source(source.spec)) == wanted
    monkeypatch.setattr(sys, "stdin", Standard(content))
    assert open_source("-").spec != source.spec


def test_standard_input_that_breaks_leaves_nothing_behind(
    tmp_path: Path, open_source: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", Standard(b"x" * 70_000))
    with pytest.raises(SourceError, match="standard input has a line"):
        open_source("-")
    assert list((tmp_path / "spool").iterdir()) == []


def test_standard_input_can_be_named_once(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="once"):
        open_sources(["-", "-"], Filters(), StorageOptions(), tmp_path)


def test_what_standard_input_said_may_be_gone(open_source: Any) -> None:
    with pytest.raises(SourceError, match="pipe it in again"):
        open_source("stdin:0123456789abcdef")


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Rows with columns, in the format that the name tells: in CSV a list is JSON."""
    kind = path.suffixes[0]
    if kind == ".csv":
        file = io.StringIO()
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows({k: json.dumps(v) if isinstance(v, list) else v for k, v in row.items()} for row in rows)
        path.write_text(file.getvalue(), encoding="utf-8")
    elif kind == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def brought(source: ManifestSource) -> list[tuple[str, dict[str, str]]]:
    """The name of each item's file, and what it brings."""
    items = (found.item for found in source.list() if found.item)
    return [(item.uri.rpartition("/")[2], json.loads(item.input)) for item in items]


@pytest.mark.parametrize("kind", [".csv", ".jsonl", ".parquet"])
def test_columns_bring_a_value_or_several_to_each_row(
    kind: str, tmp_path: Path, open_source: Any, restarts_anywhere: Any
) -> None:
    rows = [
        {"uri": "a.jpg", "what": ["a dog", "the cat"], "asked": ["Is it hot?"], "where": [[0, 0, 0.5, 1.0]]},
        {"uri": "", "what": ["nothing"], "asked": [], "where": []},
        {"uri": "b.jpg", "what": ['say "hi", 5°'], "asked": [], "where": [[10, 20.5, 30, 40], [0, 0, 9, 9]]},
        {"uri": "c.jpg", "what": None, "asked": ["", "Why?"], "where": [[1, 2]]},
    ]
    columns = {"phrase": ["what"], "question": ["asked"], "region": ["where"]}
    source = open_source(f"@{write_rows(tmp_path / f'list{kind}', rows)}", columns=columns)
    half = "0,0,0.5,1"
    assert brought(source) == [
        ("a.jpg", {"phrase": "a dog", "question": "Is it hot?", "region": half}),
        ("a.jpg", {"phrase": "the cat", "question": "Is it hot?", "region": half}),
        ("b.jpg", {"phrase": 'say "hi", 5°', "question": "", "region": "10,20.5,30,40"}),
        ("b.jpg", {"phrase": 'say "hi", 5°', "question": "", "region": "0,0,9,9"}),
        ("c.jpg", {"phrase": "", "question": "", "region": "1,2"}),
        ("c.jpg", {"phrase": "", "question": "Why?", "region": "1,2"}),
    ]
    assert [found.cursor for found in source.list()] == ["1.1", "1.2", "2", "3.1", "3.2", "4.1", "4.2"]
    restarts_anywhere(source)


@pytest.mark.parametrize("kind", [".csv", ".jsonl", ".parquet"])
def test_single_values_may_stand_by_themselves(kind: str, tmp_path: Path, open_source: Any) -> None:
    rows = [{"uri": "a.jpg", "what": " a dog ", "where": "10, 20,30.0,40"}, {"uri": "b.jpg", "what": "", "where": "x"}]
    path = write_rows(tmp_path / f"list{kind}", rows)
    assert brought(open_source(f"@{path}", columns={"phrase": ["what"], "region": ["where"]})) == [
        ("a.jpg", {"phrase": "a dog", "region": "10,20,30,40"}),
        ("b.jpg", {"phrase": "", "region": "x"}),
    ]


def test_cells_that_hold_no_text_bring_nothing_and_lose_no_row(tmp_path: Path, open_source: Any) -> None:
    cells = [None, 5, 0.5, True, {"a": 1}, [], [None, "a"], "[a dog]", '["x", "y"]', "[" * 9999]
    path = write_rows(tmp_path / "list.jsonl", [{"uri": "a.jpg", "what": cell} for cell in cells])
    values = [one["phrase"] for _, one in brought(open_source(f"@{path}", columns={"phrase": ["what"]}))]
    assert values == ["", "5", "0.5", "", "", "", "", "a", "[a dog]", "x", "y", "[" * 9999]


def test_box_stands_alone_or_in_a_list_and_what_is_none_stays_to_be_named(tmp_path: Path, open_source: Any) -> None:
    cells = [[1, 2, 3, 4], "[1, 2, 3, 4]", "[[1, 2, 3, 4], [0, 0, 0.5, 1]]", "1,2", ["0,0,1,1", "x"], {"x": 1}, 5, None]
    path = write_rows(tmp_path / "list.jsonl", [{"uri": "a.jpg", "where": cell} for cell in cells])
    values = [one["region"] for _, one in brought(open_source(f"@{path}", columns={"region": ["where"]}))]
    assert values == ["1,2,3,4", "1,2,3,4", "1,2,3,4", "0,0,0.5,1", "1,2", "0,0,1,1", "x", "", "5", ""]


def test_columns_of_one_field_follow_each_other(tmp_path: Path, open_source: Any) -> None:
    path = write_rows(tmp_path / "list.csv", [{"uri": "a.jpg", "One ": "a", "two": ["b", "c"]}])
    source = open_source(f"@{path}", columns={"phrase": ["one", "two"], "expression": ["two"]})
    pairs = [(one["phrase"], one["expression"]) for _, one in brought(source)]
    assert pairs == [("a", "b"), ("b", "c"), ("c", "c")]


@pytest.mark.parametrize("kind", [".csv", ".jsonl", ".parquet"])
def test_column_that_is_not_there_is_told_with_those_that_are(kind: str, tmp_path: Path, open_source: Any) -> None:
    path = write_rows(tmp_path / f"list{kind}", [{"uri": "a.jpg", "what": "a dog"}])
    with pytest.raises(SourceError, match=r"has no column 'phrase'; those that it has: uri, what$"):
        open_source(f"@{path}", columns={"phrase": ["phrase"]})


@pytest.mark.parametrize("spec", ["photos", "s3://bucket/x", "-", "@list.txt"])
def test_column_without_a_manifest_that_has_columns_is_told(
    spec: str, tmp_path: Path, open_source: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "list.txt").write_text("a.jpg\n")
    with pytest.raises(KosmographError, match=r"column:phrase is that of a manifest|has no columns"):
        open_source(spec, columns={"phrase": ["phrase"]})
