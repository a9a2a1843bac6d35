"""Which room of the package may import which, and who may know a network, a command line, a decoder."""

import ast
from collections.abc import Iterator
from pathlib import Path

import timesformer_zoo

SOURCE = Path(timesformer_zoo.__file__).parent
ROOMS = {  # a room, or a file beside the rooms: what it may import of ours
    "errors": "",
    "words": "",
    "writing": "errors",
    "labels": "errors",
    "model": "",
    "weights": "errors writing labels model",
    "factories": "errors labels model weights",
    "video": "errors",
    "data": "errors words labels video",
    "engine": "errors words writing video",
    "hub": "errors writing labels model weights factories video",
    "results": "",
    "prediction": "errors labels model weights factories video hub results",
    "retrieval": "errors words writing model weights video hub prediction engine",
    "explanation": "errors words writing labels model weights factories video hub results prediction",
    "timelines": "errors words writing labels model weights video results prediction",
    "train": "errors words writing labels model weights factories video hub results prediction explanation data",
    "demo": "errors words model video hub results prediction explanation retrieval timelines",
    "cli": "errors words writing labels model weights factories video hub results prediction explanation data train "
    "engine retrieval timelines demo",
}
NETWORK = ["hub", "weights/download", "weights/faults"]
ONLY_IN = {
    "argparse": ["cli", "weights/files"],  # files of weights may hold a Namespace
    "av": ["video/container", "video/index", "video/decoders", "explanation/save"],
    "decord": ["video/decoders"],
    "fsspec": ["video/remote"],
    "upath": ["video/remote"],
    "datasets": ["data/sources"],
    "ray": ["engine/cluster"],
    "faiss": ["retrieval/index"],
    "usearch": ["retrieval/index"],
    "gradio": ["demo/page"],
    "starlette": ["demo/page"],
}
ONLY_IN |= dict.fromkeys(["huggingface_hub", "httpx", "requests", "urllib"], NETWORK)


def imports(path: Path) -> Iterator[str]:
    """Every module that a file imports, in functions and for the type checker alone as well."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "." * node.level + (node.module or "")


def test_a_file_imports_from_the_rooms_below_it_alone() -> None:
    wrong = []
    for path in SOURCE.rglob("*.py"):
        file = path.relative_to(SOURCE).with_suffix("").as_posix()
        room = file.partition("/")[0]
        for module in imports(path) if file != "__init__" else ():
            package, _, inner = module.partition(".")
            if package in ONLY_IN:
                fits = bool({room, file} & set(ONLY_IN[package]))
            elif package == "timesformer_zoo" and inner:
                fits = inner.partition(".")[0] in [room, *ROOMS[room].split()]
            else:  # the package itself, or the command that starts it. "" is a relative import
                fits = package not in ("timesformer_zoo", "timesformer_zoo_cli", "")
            if not fits:
                wrong.append(f"{file} imports {module}")
    assert not wrong
