"""What mkdocs is told beside mkdocs.yml: README.md is the first page, docs/reference.py makes the reference, and links
to files outside of docs/ (examples, tests, source) lead to copies in the site."""
from __future__ import annotations

import re
import sys
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "docs")]

import reference  # noqa: E402

LINK = re.compile(r"(?<=\]\()(?![a-z]+:|#)([^)#\s]+)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """README.md and the reference become pages, and what pages link to outside of docs/ files of the site."""
    files.append(File.generated(config, "index.md", content=_moved((ROOT / "README.md").read_text(), ROOT)))
    for name, text in reference.pages():
        files.append(File.generated(config, f"reference/{name}.md", content=text))
    for page in list(files.documentation_pages()):
        at = ROOT / "docs" / page.src_uri
        if at.exists():
            page.content_string = _moved(page.content_string, at.parent, "../" * page.src_uri.count("/"))
    texts = [page.content_string for page in files.documentation_pages()]
    for path in sorted({link.partition("source/")[2] for text in texts for link in LINK.findall(text)} - {""}):
        files.append(File.generated(config, f"source/{path}", content=_shown(ROOT / path.removesuffix(".txt"))))
    return files


def _moved(markdown: str, folder: Path, up: str = "") -> str:
    """The page with links that hold in the site, of a page whose links are relative to `folder`."""
    def moved(link: re.Match[str]) -> str:
        path = (folder / link[1]).resolve().relative_to(ROOT)
        if path.parts[0] == "docs" and path.suffix != ".py":
            return up + path.relative_to("docs").as_posix()
        return f"{up}index.md" if path.name == "README.md" else f"{up}source/{path}.txt"
    return LINK.sub(moved, markdown)


def _shown(path: Path) -> str:
    """A file as it is, a folder as the list of its files."""
    return path.read_text() if path.is_file() else "".join(sorted(f"{p.name}\n" for p in path.glob("*.py")))
