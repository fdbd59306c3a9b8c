"""URIs name what they were made of, whatever its name is."""

import os
import unicodedata
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from schemas.uris import (
    absolute_uri,
    file_uri,
    has_secrets,
    path_of,
    printable,
    s3_version,
    scheme_of,
    split_s3,
    storable,
)

NAMES = st.binary(min_size=1, max_size=255).filter(lambda name: b"/" not in name and b"\0" not in name)
KEYS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1)


@given(NAMES)
@example(b"100% + #1?.jpg")
@example(b"a\nb\x80\xff.jpg")
@example(b"%2e%2e")
def test_a_path_of_any_bytes_comes_back_from_its_uri(name: bytes) -> None:
    uri = file_uri(b"/photos/" + name)
    assert os.fsencode(path_of(uri)) == os.fsencode(Path(os.fsdecode(b"/photos/" + name)))
    assert uri.isascii()
    assert uri.isprintable()


@given(NAMES, NAMES)
@example(*(unicodedata.normalize(form, "é.jpg").encode() for form in ("NFC", "NFD")))
@example(b"%41", b"A")
def test_different_names_have_different_uris(one: bytes, other: bytes) -> None:
    assert (file_uri(b"/" + one) == file_uri(b"/" + other)) == (one == other)


@given(KEYS)
@example("a//b/../c d+%20#?.jpg/")
def test_a_key_is_kept_as_it_is(key: str) -> None:
    assert split_s3(f"s3://bucket/{key}") == ("bucket", key)
    assert absolute_uri(f"s3://bucket/{key}", "/anywhere") == f"s3://bucket/{key}"


@pytest.mark.parametrize("uri", ["s3://", "s3:///key", "file:///a", "bucket/key"])
def test_what_names_no_bucket_is_refused(uri: str) -> None:
    with pytest.raises(ValueError, match="s3://bucket/key"):
        split_s3(uri)


@pytest.mark.parametrize("uri", ["file://host/a.jpg", "file://", "file:///a%00b", "s3://bucket/a", "/a.jpg"])
def test_what_names_no_path_of_this_machine_is_refused(uri: str) -> None:
    with pytest.raises(ValueError, match=r"^\S.*$"):
        path_of(uri)


def test_a_relative_path_has_no_uri() -> None:
    with pytest.raises(ValueError, match="not an absolute path"):
        file_uri("photos/a.jpg")


@pytest.mark.parametrize(
    ("text", "uri"),
    [
        ("a.jpg", "file:///photos/a.jpg"),
        ("./x/../a.jpg", "file:///photos/a.jpg"),
        ("../b c.jpg", "file:///b%20c.jpg"),
        ("/other//a.jpg", "file:///other/a.jpg"),
        ("//a.jpg", "file:///a.jpg"),
        ("#1.jpg", "file:///photos/%231.jpg"),
        ("a%20b.jpg", "file:///photos/a%2520b.jpg"),
        ("FILE:///photos/a%2ejpg", "file:///photos/a.jpg"),
        ("S3://Bucket/Key", "s3://Bucket/Key"),
        ("file://elsewhere/a.jpg", "file://elsewhere/a.jpg"),
        ("ftp://host/a.jpg", "ftp://host/a.jpg"),
    ],
)
def test_what_a_person_writes_has_one_uri(text: str, uri: str) -> None:
    assert absolute_uri(text, "/photos") == uri
    assert absolute_uri(uri, "/elsewhere") == uri


NAMES_OF_SECRETS = """
    X-Amz-Signature X-Amz-Credential X-Amz-Security-Token X-Goog-Signature GoogleAccessId AWSAccessKeyId Signature sig
    x-oss-signature OSSAccessKeyId q-signature sign wsSecret auth_key hdnea hdnts __token__
    token access_token accessToken refresh_token id_token jwt auth x-api-key apikey client_secret secret password pwd
"""


@pytest.mark.parametrize("name", NAMES_OF_SECRETS.split())
def test_a_signature_in_a_url_is_masked(name: str) -> None:
    for mark in ("?", "?size=1&", "?size=1;", "#"):
        url = f"https://host/a.jpg{mark}{name}=planted%2F77&b=2"
        assert absolute_uri(url, "/photos") == f"https://host/a.jpg{mark}{name}=***&b=2"
        assert has_secrets(url)
        assert has_secrets(absolute_uri(url, "/photos"))


@pytest.mark.parametrize("before", [" ", '"', "see ", "\ufeff", "@", "https://other/"])
@pytest.mark.parametrize("mark", ["://", ":/", ":///"])
@pytest.mark.parametrize("rest", ["u:planted@host/a", "host/a?X-Amz-Signature=planted", "u:planted@host/a?sig=planted"])
def test_a_url_is_masked_whatever_stands_before_it(before: str, mark: str, rest: str) -> None:
    text = f"{before}https{mark}{rest}"
    assert has_secrets(text)
    assert "planted" not in absolute_uri(text, "/photos")


@pytest.mark.parametrize(
    ("text", "uri"),
    [
        ("a.jpg?token=abc", "file:///photos/a.jpg%3Ftoken%3Dabc"),
        ("me@2x.jpg", "file:///photos/me%402x.jpg"),
        ("run:/me@host.jpg", "file:///photos/run%3A/me%40host.jpg"),
        ("/data/a:/b@c.jpg", "file:///data/a%3A/b%40c.jpg"),
        ("file:///a@b.jpg?sig=1", "file:///a%40b.jpg%3Fsig%3D1"),
        ("s3://bucket/http://u@host/a?sig=1", "s3://bucket/http://u@host/a?sig=1"),
        (
            "https://host/@me/a@2x.jpg?design=1&author=me&tokens=3",
            "https://host/@me/a@2x.jpg?design=1&author=me&tokens=3",
        ),
    ],
)
def test_what_only_looks_like_a_secret_stays(text: str, uri: str) -> None:
    assert absolute_uri(text, "/photos") == uri
    assert not has_secrets(text)


@pytest.mark.parametrize("text", ["a\0b", "\ud800.jpg"])
def test_what_no_path_can_be_is_refused(text: str) -> None:
    assert not storable(text)
    with pytest.raises(ValueError):  # noqa: PT011 - the encoder's own words for half a surrogate pair
        absolute_uri(text, "/photos")


def test_a_path_with_a_colon_is_no_scheme() -> None:
    assert [scheme_of(text) for text in ("c:/a", "a:b", "12://x", "HTTPS://x")] == ["", "", "", "https"]


@given(st.text())
@example("\x1b[31m\n\u202e\ud800\x9b")
def test_printed_text_is_one_line_without_controls(text: str) -> None:
    shown = printable(text)
    assert shown.isprintable()
    assert shown == text or not text.isprintable()


def test_a_version_is_an_etag_that_any_database_can_hold() -> None:
    assert s3_version('"d41d8cd98f00b204e9800998ecf8427e-12"') == "d41d8cd98f00b204e9800998ecf8427e-12"
    assert s3_version('"a\0\x1b\u202e"') == "a"
    assert len(s3_version("a" * 10_000)) == 200
