"""The pages that people read, taken apart: their links, headings and fenced blocks."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from markdown.extensions.toc import slugify

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    [ROOT / "README.md", *ROOT.glob("docs/**/*.md"), *ROOT.glob("deploy/**/*.md"), *ROOT.glob("benchmarks/*.md")]
)
NAMES = [path.relative_to(ROOT).as_posix() for path in PAGES]
OUTPUT = "its output, checked by a test"
RUN = "run by a test"
SHELL = ("", "sh", "bash")
_FENCE = re.compile(
    r"(?:^<!-- (?P<above>[^\n]*) -->\n+)?^(?P<indent> *)```(?P<language>\w*)[^\n]*\n(?P<text>.*?)^ *```$", re.M | re.S
)
_LINK = re.compile(r"\]\(([^)\s]+)\)|(?:src|href)=\"([^\"]+)\"|<(https?://[^>\s]+)>")
_HEADING = re.compile(r"^#+ +(.+?) *$", re.M)


@dataclass(frozen=True)
class Block:
    """A fenced block: `above` is the comment before it, `shown` the output that follows, where it is announced."""

    page: str
    line: int
    language: str
    text: str
    above: str
    shown: str = ""

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def runs(self) -> bool:
        return bool(self.shown) or self.above.startswith(RUN)


def blocks(name: str) -> list[Block]:
    """Those of a page, in order; outputs are with what they are of."""
    text = (ROOT / name).read_text()
    found: list[Block] = []
    for one in _FENCE.finditer(text):
        body = re.sub(rf"^{one['indent']}", "", one["text"], flags=re.M)
        above = one["above"] or ""
        if above == OUTPUT:
            last = found.pop()
            found.append(Block(last.page, last.line, last.language, last.text, last.above, body))
        else:
            found.append(Block(name, text.count("\n", 0, one.start("text")), one["language"], body, above))
    return found


def prose(name: str) -> str:
    """The page without its blocks."""
    return _FENCE.sub("", (ROOT / name).read_text())


def links(name: str) -> Iterator[str]:
    """Where a page leads, in prose: code shows addresses, and does not lead there."""
    for found in _LINK.finditer(re.sub(r"`[^`\n]*`", "", prose(name))):
        yield next(filter(None, found.groups()))


def anchors(path: Path) -> set[str]:
    """What can stand behind # in a link to the page."""
    headings = _HEADING.findall(_FENCE.sub("", path.read_text()))
    return {slugify(re.sub(r"[`*]|\[([^\]]*)\]\([^)]*\)", r"\1", heading), "-") for heading in headings}
