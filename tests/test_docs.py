"""The documentation beside the README: its Python runs, its commands are ones that the program takes, its links lead
somewhere, and it names nothing that is not public."""

import ast
import re
import shlex
from pathlib import Path

import pytest

import timesformer_zoo
from timesformer_zoo.hub.load import check_name
from timesformer_zoo_cli import VERBS, parse

ROOT = Path(__file__).parents[1]
PAGES = sorted(ROOT.glob("docs/*.md"))
TEXTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "examples" / "README.md", *PAGES]
SCRIPTS = sorted(ROOT.glob("examples/*.py"))


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def blocks_of(page: Path) -> list[re.Match[str]]:
    return list(re.finditer(r"```python\n(.*?)```", page.read_text("utf-8"), re.DOTALL))


@pytest.mark.parametrize("page", [page for page in PAGES if blocks_of(page)], ids=name_of)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # of the ONNX exporter's libraries
def test_examples_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In order, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    text = page.read_text("utf-8")
    names: dict[str, object] = {}
    for block in blocks_of(page):
        before = text[: block.start(1)].count("\n")  # so that a traceback gives the page's line
        exec(compile("\n" * before + block[1], page, "exec"), names)


COMMAND = re.compile(
    r"(?:timesformer-zoo|(?:accelerate launch|torchrun|python)[^`\n]* "
    r"(?:examples/(?:finetune|evaluate)\.py|-m timesformer_zoo_cli)) [^`\n]+"
)


def commands_of(page: Path) -> list[list[str]]:
    """Every command in a page, as the program gets it; one with a … in it is a part of one, and left out."""
    spans = [span for span in COMMAND.findall(page.read_text("utf-8")) if "…" not in span]
    spans = [re.sub(r"^.* examples/(\w+)\.py", r"timesformer-zoo \1", span) for span in spans]
    spans = [re.sub(r"^.* -m timesformer_zoo_cli", "timesformer-zoo", span) for span in spans]
    return [shlex.split(span, comments=True)[1:] for span in spans]


def test_commands_are_found() -> None:
    verbs = [command[0] for page in TEXTS for command in commands_of(page)]
    assert {"list", "evaluate", "finetune", "convert"} <= set(verbs)
    assert len(verbs) > 12


@pytest.mark.parametrize("page", TEXTS, ids=name_of)
def test_commands_are_ones_that_the_program_takes(page: Path) -> None:
    for verb, *words in commands_of(page):
        assert verb in VERBS
        if words in ([], ["--help"]):
            continue
        args = parse([verb, *words])
        if (model := getattr(args, "model", None)) and "/" not in model and model != "mine":
            check_name(model)


@pytest.mark.parametrize("page", TEXTS, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text("utf-8")):
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize("source", [*TEXTS, *SCRIPTS], ids=name_of)
def test_what_is_imported_is_public(source: Path) -> None:
    text = source.read_text("utf-8")
    code = text if source.suffix == ".py" else "\n".join(block[1] for block in blocks_of(source))
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom) and str(node.module).partition(".")[0] == "timesformer_zoo":
            assert node.module == "timesformer_zoo"
            assert {alias.name for alias in node.names} <= set(timesformer_zoo.__all__)
