"""The Python examples of each page of the documentation run, in order, in an empty folder."""

import re
from pathlib import Path

import pytest

PAGES = [Path(__file__).parents[1] / "examples" / "timm.md"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # of the ONNX exporter's libraries
def test_examples_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = page.read_text("utf-8")
    blocks = list(re.finditer(r"```python\n(.*?)```", text, re.DOTALL))
    assert blocks
    names: dict[str, object] = {}
    for block in blocks:
        before = text[: block.start(1)].count("\n")  # so that a traceback gives the page's line
        exec(compile("\n" * before + block[1], page, "exec"), names)
