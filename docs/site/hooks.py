"""Pages of the repository that lie outside docs/ are pages of the site as well, and links between all of them lead on.

In the repository, links are relative paths, as GitHub follows them. Here they become those of the site; what the site
does not have (a script, a folder of code) stays as its text. A path that is not there is left, and --strict refuses it.
A notebook is a page, and a file to download.
"""

import json
import os
import re
from pathlib import Path, PurePosixPath
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
PREFIX = "repository"
OUTSIDE = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "examples/**/*.md", "examples/*.ipynb", "benchmarks/*.md")
PICTURES = ("examples/figures/*.png",)
LINK = re.compile(r"\[((?:[^\[\]]|\[[^\]]*\])*)\]\((?![a-z]+:|#)([^)#\s]+)(#[^)\s]*)?\)")


def on_files(files: Files, config: MkDocsConfig, **_: Any) -> Files:
    for pattern in OUTSIDE + PICTURES:
        for path in sorted(ROOT.glob(pattern)):
            place = f"{PREFIX}/{path.relative_to(ROOT).as_posix()}"
            files.append(File.generated(config, place, abs_src_path=str(path)))
            if path.suffix == ".ipynb":
                files.append(File.generated(config, page_of(place), content=as_markdown(path)))
    return files


def page_of(place: str) -> str:
    return place.removesuffix(".ipynb") + ".md" if place.endswith(".ipynb") else place


def as_markdown(notebook: Path) -> str:
    cells = json.loads(notebook.read_text("utf-8"))["cells"]
    texts = [(cell["cell_type"], "".join(cell["source"])) for cell in cells]
    body = "\n\n".join(text if kind == "markdown" else f"```python\n{text}\n```" for kind, text in texts)
    return f'{body}\n\n<a href="{notebook.name}" download>Download as a notebook</a>\n'


def on_page_markdown(markdown: str, page: Page, files: Files, **_: Any) -> str:
    place = page.file.src_uri
    folder = PurePosixPath(_in_repository(place)).parent

    def rewritten(link: re.Match[str]) -> str:
        text, path, anchor = link[1], link[2], link[3] or ""
        target = os.path.normpath(folder / path)
        if (ROOT / target).is_dir() and (ROOT / target / "README.md").exists():
            target += "/README.md"
        uri = page_of(target.removeprefix("docs/") if target.startswith("docs/") else f"{PREFIX}/{target}")
        if files.get_file_from_path(uri) is not None:
            return f"[{text}]({os.path.relpath(uri, PurePosixPath(place).parent)}{anchor})"
        return text if (ROOT / target).exists() else link[0]

    return LINK.sub(rewritten, markdown)


def _in_repository(uri: str) -> str:
    return uri.removeprefix(f"{PREFIX}/") if uri.startswith(f"{PREFIX}/") else f"docs/{uri}"
