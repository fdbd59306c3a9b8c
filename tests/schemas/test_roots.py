"""The folders whose local files a job may read."""

from pathlib import Path

import pytest

from schemas.roots import Roots, outermost


@pytest.mark.parametrize(
    ("place", "held"),
    [
        ("/data/photos", True),
        ("/data/photos/a/b.jpg", True),
        ("/data/photos2/b.jpg", False),
        ("/data", False),
        ("/", False),
        ("a.jpg", False),
    ],
)
def test_roots_hold_what_lies_below_them(place: str, held: bool) -> None:
    roots = Roots(["/data/photos", "/data/other/"])
    assert [roots.hold(place.encode()) for _ in range(2)] == [held] * 2
    assert Roots(["/"]).hold(place.encode())
    assert not Roots([]).hold(place.encode())


def test_folders_in_others_go_without_saying_but_for_those_that_links_lead_out_of(tmp_path: Path) -> None:
    for name in ("a/b/c", "a-b", "elsewhere"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "a" / "out").symlink_to("../elsewhere")
    (tmp_path / "a" / "in").symlink_to("b")
    folders = [str(tmp_path / name) for name in ("a/b/c", "a", "a/b", "a-b", "a/out", "a/in", "a")]
    assert outermost(folders) == sorted(str(tmp_path / name) for name in ("a", "a-b", "a/out"))
    assert outermost(["/data", "/"]) == ["/"]
    assert outermost([]) == []
