"""The notebook runs from its first cell to its last, offline, in an empty folder; it is stored without outputs."""

import ast
import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

import timesformer_zoo

NOTEBOOKS = sorted((Path(__file__).parents[1] / "examples").glob("*.ipynb"))
every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)


@every_notebook
@pytest.mark.filterwarnings("default")  # the notebook's libraries; the kernel's warnings are its own
def test_notebook_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": tmp_path}}).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 4
    said = "".join(output.get("text", "") for output in outputs if output.get("name") == "stdout")
    top1 = re.search(r"top-1 ([\d.]+)%.* of 6 videos", said)
    assert top1 is not None
    assert float(top1[1]) > 60  # something was learnt: by chance it is a third
    assert (tmp_path / "mine" / "model.safetensors").exists()


@every_notebook
def test_notebook_is_stored_without_outputs_and_imports_what_is_public(path: Path) -> None:
    code = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in code)
    for node in ast.walk(ast.parse("\n".join(cell.source for cell in code))):
        if isinstance(node, ast.ImportFrom) and str(node.module).partition(".")[0] == "timesformer_zoo":
            assert node.module == "timesformer_zoo"
            assert {alias.name for alias in node.names} <= set(timesformer_zoo.__all__)
