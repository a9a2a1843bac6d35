"""A hundred clips are enough, if the model has seen motion before: fine-tuning against training from scratch.

    python examples/camera_motion/fetch_sources.py sources/        # or any folder of pictures and films
    python examples/small_data.py sources/test --out small_data

The task, made from the pictures and from frames of the films: how fast does the camera move, slow, medium or fast,
whichever way it goes? The embedded checkpoint was trained to say which way, never how fast, and it saw none of these
pictures. Both ways have the small-data recipe and the same number of steps. Training, validation and test have pictures
of their own: each way chooses its learning rate on the validation clips, with the first seed; then it trains with every
seed, and the test clips are looked at once, for the mean and the spread over the seeds.

From scratch means as timm.create_model initialises a model: at random, without the difference between frames that the
first step of the embedded checkpoint started as.

Leaves the clips, the models, results.json and curve.png in the folder. What is done already is not done again.
"""

import argparse
import json
import math
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev

import numpy as np
import timm
import torch
from PIL import Image
from torch.nn import functional as F

from timesformer_zoo import (
    IMAGE_SUFFIXES,
    RECIPES,
    VIDEO_SUFFIXES,
    Finetuned,
    Recipe,
    Video,
    VideoList,
    evaluate,
    finetune,
    read_videos,
)

SPEEDS = {"slow": (3.0, 7.0), "medium": (11.0, 19.0), "fast": (28.0, 44.0)}  # pixels, over the whole clip
FRAMES, SIZE = 8, 72
WAYS = ("fine-tuned", "from scratch")


def pictures(path: Path) -> list[torch.Tensor]:
    """(3, H, W) in [0, 1]: a picture, or four frames of a film."""
    if path.suffix.lower() in IMAGE_SUFFIXES:
        with Image.open(path) as image:
            image.thumbnail((1024, 1024))
            return [torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1) / 255]
    film = Video(path, num_threads=1)
    frames = film.frames([round(i * (film.num_frames - 1) / 3) for i in range(4)])
    return [frame.permute(2, 0, 1) / 255 for frame in frames]


def look(picture: torch.Tensor, speed: tuple[float, float], generator: torch.Generator) -> torch.Tensor:
    """What a camera sees that moves over a picture on a straight line: (T, 3, S, S)."""
    zoom, share, angle, x, y = torch.rand(5, generator=generator).tolist()
    distance = speed[0] * (speed[1] / speed[0]) ** share
    dx, dy = distance * math.cos(2 * math.pi * angle), distance * math.sin(2 * math.pi * angle)
    side = (SIZE + SPEEDS["fast"][1]) * (1.1 + zoom)  # of the picture, whatever the speed: one frame tells nothing
    scale = side / min(picture.shape[1:])
    picture = F.interpolate(picture[None], scale_factor=scale, mode="bilinear", antialias=scale < 1)[0]
    height, width = picture.shape[1:]
    left = max(0.0, -dx) + x * (width - SIZE - abs(dx) - 1)
    top = max(0.0, -dy) + y * (height - SIZE - abs(dy) - 1)
    time = torch.linspace(0, 1, FRAMES)[:, None]
    columns = left + time * dx + torch.arange(SIZE)
    rows = top + time * dy + torch.arange(SIZE)
    grid = torch.stack(
        [
            (columns / (width - 1) * 2 - 1)[:, None, :].expand(FRAMES, SIZE, SIZE),
            (rows / (height - 1) * 2 - 1)[:, :, None].expand(FRAMES, SIZE, SIZE),
        ],
        -1,
    )
    return F.grid_sample(picture.expand(FRAMES, -1, -1, -1), grid, align_corners=True)


def make_clips(sources: list[Path], folder: Path, count: int, seed: int) -> None:
    """`count` clips of each class as folders of frames, from all sources in turn."""
    generator = torch.Generator().manual_seed(seed)
    seen = [picture for path in sources for picture in pictures(path)]
    for i in range(count):
        for label, speed in SPEEDS.items():
            clip = look(seen[i % len(seen)], speed, generator)
            place = folder / label / f"{label}_{i:03}"
            place.mkdir(parents=True)
            for t, frame in enumerate(clip):
                Image.fromarray((frame * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()).save(place / f"{t}.png")


def draw(curves: dict[str, list[list[float]]], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.add_subplot()
    for (name, seeds), style in zip(curves.items(), ("-", "--"), strict=True):
        for values in seeds:
            axes.plot(range(1, len(values) + 1), [100 * value for value in values], style, color=f"C{style == '--':d}")
        axes.plot([], [], style, color=f"C{style == '--':d}", label=name)
    axes.axhline(100 / len(SPEEDS), color="grey", linestyle=":", label="chance")
    axes.set_xlabel("epoch")
    axes.set_ylabel("validation accuracy, %")
    axes.set_ylim(0, 100)
    axes.legend(loc="lower right")
    figure.savefig(path, dpi=120)


def train_one(way: str, recipe: Recipe, args: argparse.Namespace, train: VideoList, val: VideoList) -> Finetuned:
    """A run of its own folder; one that was stopped goes on, one that is done is read."""
    torch.manual_seed(recipe.seed)
    model = timm.create_model(
        args.model, pretrained=way == WAYS[0], num_classes=len(train.classes), drop_path_rate=recipe.drop_path
    )
    # Every frame of these clips counts. A mirror image is as fast.
    model.clip = {"stride": 1, "fps": None, "crops": 1, "jitter": [64, 72], "flip": True}
    folder = args.out / way.replace(" ", "_") / f"lr_{recipe.lr:g}_seed_{recipe.seed}"
    done = finetune(model, train, recipe, folder, val=val, workers=args.workers)
    print(f"{way}, rate {recipe.lr:g}, seed {recipe.seed}: validation {done.history[-1]['top1']:.1%}", flush=True)
    return done


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", type=Path, nargs="+", help="pictures and films, or folders of them")
    parser.add_argument("--out", type=Path, default=Path("small_data"))
    parser.add_argument("--model", default="timesformer_tiny_divided.camera_motion", help="with weights to start from")
    parser.add_argument("--train-clips", type=int, default=30, help="of each class")
    parser.add_argument("--test-clips", type=int, default=30, help="of each class; as many for validation")
    # The recipe is for models of the base's size; so small a one takes a higher rate.
    parser.add_argument("--rates", type=float, nargs="+", default=[5e-4, 1.5e-3, 4e-3])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--warmup", type=float, default=1, help="epochs")
    parser.add_argument("--workers", type=int, default=0)
    args = parser.parse_args(arguments)

    found = [path for source in args.sources for path in ([source] if source.is_file() else source.rglob("*"))]
    files = sorted(path for path in found if path.suffix.lower() in IMAGE_SUFFIXES | VIDEO_SUFFIXES)
    counts = {"train": args.train_clips, "val": args.test_clips, "test": args.test_clips}
    for i, (split, count) in enumerate(counts.items()):
        folder = args.out / "clips" / split
        if not folder.exists():
            make_clips(files[i::3], folder, count, seed=i)  # no picture is in two splits
    train, val, test = (read_videos("folder", args.out / "clips", split) for split in counts)
    print(train.report(), val.report(), test.report(), sep="\n")

    small = replace(RECIPES["small-data"], epochs=args.epochs, warmup=args.warmup)
    curves, results = {}, {}
    for way in WAYS:
        # Layer decay keeps the early layers near their weights, which makes sense only where these are worth keeping.
        recipe = small if way == WAYS[0] else replace(small, layer_decay=None)
        choices = {}
        for rate in args.rates:
            done = train_one(way, replace(recipe, lr=rate, seed=args.seeds[0]), args, train, val)
            choices[rate] = done.history[-1]["top1"]
        best = max(choices, key=lambda rate: choices[rate])
        runs = [train_one(way, replace(recipe, lr=best, seed=seed), args, train, val) for seed in args.seeds]
        curves[way] = [[entry["top1"] for entry in done.history] for done in runs]
        right = [evaluate(done.model, test, progress=False).top1 for done in runs]
        spread = stdev(right) if len(right) > 1 else None
        results[way] = {"rate": best, "validation": choices, "test": right, "mean": mean(right), "stdev": spread}
        print(f"{way}: rate {best:g}; test {mean(right):.1%}, seeds {', '.join(f'{value:.1%}' for value in right)}")
    draw(curves, args.out / "curve.png")
    (args.out / "results.json").write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
