"""bfloat16 and int8 on a CPU: time beside float32, size of the weights, and what accuracy it costs.

    python benchmarks/quantize.py --sources sources/ --write

Time and logits are of base divided, 8 frames of 224 px, in turns. The accuracy is that of the embedded model on camera
motion: with --sources (examples/camera_motion/fetch_sources.py makes the folder) over held-out pictures and footage,
without over procedural textures. Without the embedded checkpoint its cells stay empty.
"""

from __future__ import annotations

import statistics
import sys
import warnings
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Sequence
from copy import deepcopy
from functools import lru_cache
from io import BytesIO
from pathlib import Path

import timm
import torch
from measuring import MIB, in_turns, ratio
from peers import Case, build, clip
from products import expected_seconds
from results import Table, run
from torch import nn

from timesformer_zoo import CHECKPOINTS

sys.path.insert(0, str(Path(__file__).parents[1] / "examples" / "camera_motion"))

from synthetic_protocol import LABELS, CameraMotion, Source, load_sources, textures

EMBEDDED = "timesformer_tiny_divided.camera_motion"
TEST_SEED = 2_000  # the test set of examples/camera_motion/evaluate_footage.py
CASE = Case("base_divided", 8, 224)


def float32(model: nn.Module) -> nn.Module:
    return model


def bfloat16(model: nn.Module) -> nn.Module:
    return model.bfloat16()


def torch_int8(model: nn.Module) -> nn.Module:
    """Linear layers with int8 weights, and activations quantised as they come, by torch's own kernels."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch announces that torchao will take this over
        return torch.ao.quantization.quantize_dynamic(model, {nn.Linear}, torch.qint8)


def torchao_int8(model: nn.Module) -> nn.Module:
    """The same by torchao."""
    from torchao.quantization import Int8DynamicActivationInt8WeightConfig, quantize_

    quantize_(model, Int8DynamicActivationInt8WeightConfig())
    return model


def torchao_compiled(model: nn.Module) -> nn.Module:
    return torch.compile(torchao_int8(model), dynamic=False)  # type: ignore[return-value]


ROWS = {
    "float32": float32,
    "bfloat16": bfloat16,
    "int8, torch.ao.quantization.quantize_dynamic": torch_int8,
    "int8, torchao": torchao_int8,
    "int8, torchao, compiled": torchao_compiled,
}
COLUMNS = ("s", "times faster than float32", "weights, MiB", "logits differ by (standard deviation 1)",
           "accuracy on camera motion", "accuracy lost", "clips")  # fmt: skip


@torch.no_grad()
def measure(convert: Callable[[nn.Module], nn.Module], options: Namespace) -> Sequence[str]:
    case = CASE.quick() if options.quick else CASE
    plain, x = build(case, "ours"), clip(case)
    converted = convert(deepcopy(plain))
    y = x.bfloat16() if convert is bfloat16 else x
    exact, logits = plain(x), converted(y).float()  # the warm-up, too
    times = in_turns({"float32": lambda: plain(x), "converted": lambda: converted(y)}, options.rounds)
    cells = [
        f"{statistics.median(times['converted']):.3f}",
        f"{ratio(times['float32'], times['converted']):.2f}",
        f"{size(converted) / MIB:.0f}",
        f"{float((logits - exact).abs().max() / exact.std()):.1e}",
    ]
    if not Path(CHECKPOINTS[EMBEDDED].source["file"]).exists():
        print(f"{EMBEDDED} is not there: accuracy stays empty", file=sys.stderr)
        return [*cells, "", "", ""]
    model = timm.create_model(EMBEDDED, pretrained=True).eval().fuse()
    before, clips = accuracy(model, options)
    after, _ = accuracy(convert(deepcopy(model)), options, torch.bfloat16 if convert is bfloat16 else torch.float32)
    over = "pictures and footage" if options.sources else "textures"
    return [*cells, f"{after:.2%}", f"{before - after:+.2%}", f"{clips}, {over}"]


def size(model: nn.Module) -> int:
    """Bytes of the saved state dict; quantised layers keep their weights in no parameter."""
    file = BytesIO()
    torch.save(model.state_dict(), file)
    return file.tell()


def accuracy(model: nn.Module, options: Namespace, dtype: torch.dtype = torch.float32) -> tuple[float, int]:
    """Share of the test clips whose label is right, and their number."""
    right = clips = 0
    for frames, labels in test_clips(options.sources, options.batches, options.quick):
        right += int((model(frames.to(dtype)).argmax(1) == labels).sum())
        clips += len(labels)
    return right / clips, clips


@lru_cache
def test_clips(folder: Path | None, batches: int, quick: bool) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Batches of 63 clips of pictures, and as many of footage, as the embedded model's training tests itself."""
    batches, per_class, number = (1, 1, 4) if quick else (batches, 7, 96)
    sources = load_sources(folder, "test") if folder else textures(number, TEST_SEED)
    pictures, footage = [s for s in sources if not s.is_video], [s for s in sources if s.is_video]
    parts: list[list[Source]] = [part for part in (pictures, footage) if part]
    found = []
    for part in parts:
        data = CameraMotion(part, per_class * len(LABELS), batches, TEST_SEED, augment=False)
        found += [data[i][:2] for i in range(batches)]
    return found


def estimate(convert: Callable[[nn.Module], nn.Module], options: Namespace) -> float:
    slow = 60 if convert is torchao_compiled else 0
    return 30 + slow + expected_seconds(CASE) * 2 * (options.rounds + 1) + 2 * options.batches


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--sources", type=Path, help="folder with the test pictures and footage of camera motion")
    parser.add_argument("--batches", type=int, default=30, help="of 63 test clips, of each kind (default: 30)")


TABLE = Table("quantize", COLUMNS, ROWS, measure, estimate)

if __name__ == "__main__":
    run(__doc__, [TABLE], rounds=7, add_arguments=add_arguments)
