"""Pages that lie beside docs/ are in the site as well, and what it cannot link to is told by its name.

A page links to any file of the repository by its path from where it lies, so that links hold on a disk and on a git
host. In the site there are pages and pictures only: a link to another file becomes its text.
"""

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
PAGES = ("deploy/**/*.md", "benchmarks/*.md")
PICTURES = ("benchmarks/*.png", "examples/*.png")
FENCED = re.compile(r"(^```.*?^```$|^~~~.*?^~~~$|`[^`\n]+`)", re.DOTALL | re.MULTILINE)
LINK = re.compile(
    r"(?P<image>!?)\[(?P<text>[^\]\[]*(?:\[[^\]]*\][^\]\[]*)*)\]\((?P<path>[^)\s#:]*)(?P<anchor>#[^)\s]*)?\)"
)


def on_files(files: Files, config: Any) -> Files:
    """With the pages and pictures that lie beside docs/."""
    for pattern in (*PAGES, *PICTURES):
        for path in sorted(ROOT.glob(pattern)):
            name = path.relative_to(ROOT).as_posix()
            files.append(File.generated(config, name, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """With links as the site needs them."""
    source = page.file.src_uri
    at = posixpath.dirname(source if _is_beside(source) else f"docs/{source}")

    def link(found: re.Match[str]) -> str:
        path, anchor = found["path"], found["anchor"] or ""
        if not path:
            return found[0]
        target = posixpath.normpath(posixpath.join(at, path))
        name = target.removeprefix("docs/")
        if files.get_file_from_path(name) is None:
            return found["text"]
        to = posixpath.relpath(name, posixpath.dirname(source) or ".")
        return f"{found['image']}[{found['text']}]({to}{anchor})"

    parts = FENCED.split(markdown)
    parts[::2] = [LINK.sub(link, part) for part in parts[::2]]
    return "".join(parts)


def _is_beside(source: str) -> bool:
    return source.startswith(("deploy/", "benchmarks/"))
