"""The documentation beside the README: its Python and its commands run, its links lead somewhere, it names nothing that
is not public, and all that is public. `mkdocs build --strict` makes a site of it, and checks its anchors as well."""

import ast
import re
import shlex
from contextlib import nullcontext, redirect_stdout
from pathlib import Path
from shutil import copytree

import pytest
from footage import films_by_class, pieces, write

import timesformer_zoo
from timesformer_zoo.hub.load import check_name
from timesformer_zoo_cli import VERBS, main, parse

ROOT = Path(__file__).parents[1]
PAGES = sorted(ROOT.glob("docs/**/*.md"))
TEXTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "examples" / "README.md", *PAGES]
SCRIPTS = sorted(ROOT.glob("examples/*.py"))


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def blocks_of(page: Path, languages: str = "python") -> list[re.Match[str]]:
    """The blocks of code in a page: [1] is the language, [2] the code."""
    return list(re.finditer(rf"^```({languages})\n(.*?)^```", page.read_text("utf-8"), re.DOTALL | re.MULTILINE))


@pytest.fixture(scope="module")
def user(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the reader of a page has: clip.mp4, footage/ with another, and videos/, five for each of three classes."""
    folder = tmp_path_factory.mktemp("user")
    write(folder / "clip.mp4", pieces("bikes", 1, length=80)[0])
    write(folder / "footage" / "street.mp4", pieces("carphone_pristine", 1, length=40)[0])
    films_by_class(folder / "videos", 5)
    return folder


LAUNCHES = ("training_on_many_machines.md",)  # tests/train/test_launch_lines.py runs them


def run_command(line: str) -> None:
    """A line of a bash block, here: starting the program anew would take seconds each time."""
    words, _, path = line.partition(" > ")
    program, *arguments = shlex.split(words, comments=True)
    assert program == "timesformer-zoo", f"a bash block has {line!r}: what is not to be run is a text block"
    with open(path.strip(), "w") if path else nullcontext() as file, redirect_stdout(file) if file else nullcontext():
        assert main(arguments) == 0, line


@pytest.mark.parametrize("page", [page for page in PAGES if blocks_of(page, "python|bash")], ids=name_of)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # of the ONNX exporter's libraries
def test_code_runs(page: Path, user: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the order of the page, beside a video and a folder of videos."""
    copytree(user, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    text = page.read_text("utf-8")
    names: dict[str, object] = {}
    for block in blocks_of(page, "python" if page.name in LAUNCHES else "python|bash"):
        if block[1] == "bash":
            for line in block[2].replace("\\\n", "").splitlines():
                if line and not line.startswith("#"):
                    run_command(line)
        else:
            before = text[: block.start(2)].count("\n")  # so that a traceback gives the page's line
            exec(compile("\n" * before + block[2], page, "exec"), names)


def test_every_public_name_has_its_entry() -> None:
    pages = "\n".join(page.read_text("utf-8") for page in ROOT.glob("docs/reference/*.md"))
    entries = re.findall(r"^::: timesformer_zoo\.(\w+)$", pages, re.MULTILINE)
    assert sorted(entries) == sorted(timesformer_zoo.__all__)


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
        given = getattr(args, "model", None) or []  # of the verb that takes several, a list
        for model in [given] if isinstance(given, str) else given:
            if "/" not in model and model != "mine":
                check_name(model)


@pytest.mark.parametrize("page", TEXTS, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text("utf-8")):
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize("source", [*TEXTS, *SCRIPTS], ids=name_of)
def test_what_is_imported_is_public(source: Path) -> None:
    text = source.read_text("utf-8")
    code = text if source.suffix == ".py" else "\n".join(block[2] for block in blocks_of(source))
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom) and str(node.module).partition(".")[0] == "timesformer_zoo":
            assert node.module == "timesformer_zoo"
            assert {alias.name for alias in node.names} <= set(timesformer_zoo.__all__)
