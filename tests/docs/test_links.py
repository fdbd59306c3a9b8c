"""What the pages link to is there."""

from urllib.parse import urlsplit

import pytest

from tests.docs.pages import NAMES, ROOT, anchors, links


@pytest.mark.parametrize("name", NAMES)
def test_links_lead_to_files_and_headings(name: str) -> None:
    for link in links(name):
        parts = urlsplit(link)
        if parts.scheme:
            assert parts.scheme in ("https", "http"), link
            assert parts.hostname == "127.0.0.1" or (parts.scheme == "https" and "." in (parts.hostname or "")), link
            continue
        target = (ROOT / name).parent / parts.path if parts.path else ROOT / name
        assert target.exists(), f"{name}: {link}"
        if parts.fragment:
            assert parts.fragment in anchors(target), f"{name}: {link}"


def test_every_page_of_the_documentation_is_led_to() -> None:
    """From the README by links, or by the navigation, which mkdocs checks to be whole."""
    assert any(link.startswith("docs/") for link in links("README.md"))
