"""What the embedded checkpoint gets wrong: clips of a virtual camera, and inputs that it was not trained for.

    python examples/camera_motion/mistakes.py sources/ --draw docs/figures/camera_motion_mistakes.png

The clips are those of `synthetic_protocol.py`, half of them in the held-out film and half in the held-out pictures that
may be shown here: Big Buck Bunny, (c) 2008 Blender Foundation, CC BY 3.0, and chelsea, coffee and rocket of
scikit-image, CC0 and public domain. Subtitles are burnt into them, two stand side by side, and screens are recorded.

Legend: B clips, T frames, S pixels of a frame's side. Clips are (B, 3, T, S, S), normalised.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path

import torch
from evaluate_footage import DEFAULT, probabilities
from PIL import Image, ImageDraw, ImageFont
from synthetic_protocol import FRAMES, LABELS, MEAN, SIZE, STD, CameraMotion, load_sources
from tiny_model import load_weights
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.v2.functional import pil_to_tensor, to_pil_image

from timesformer_zoo import ClipSpec, clip_spec, crop_views

SHOWN = ("data_bigbuckbunny.mp4", "data_chelsea.png", "data_coffee.png", "data_rocket.jpg")
SEED = 3_000
BATCH = 63  # as in the protocol: seven clips a class
UNCLEAR = 0.5
DRAWN = (
    "as they are",
    "a subtitle that changes",
    "split screen, halves of two classes",
    "screen, another page",
)
TEXTS = (
    "What do you mean, he is\nnot coming back?",
    "I told you yesterday.",
    "Nobody ever asked me\nwhat I wanted to do.",
)
WORDS = ("of", "and", "the", "video", "clip", "frame", "model", "time", "space", "camera", "window", "label", "train")
WIDTH, HEIGHT, TOOLBAR = 640, 360, 44  # pixels of a recorded screen, and of what does not scroll

Clips = tuple[Tensor, list[str | None]]
"""Clips, and what is right for each; None: nothing is."""


font = lru_cache(ImageFont.load_default)  # of a size


# ---- what is burnt in, or cut together ----


def subtitled(clips: Tensor, generator: torch.Generator, changes: bool) -> Tensor:
    """White letters with a black rim, 5 % of the frame's height, drawn large and scaled as `predict` scales a video."""
    side, out = 8 * SIZE, clips.clone()
    layers = []
    for text in TEXTS:
        image = Image.new("LA", (side, side))
        drawn = ImageDraw.Draw(image)
        place = dict(xy=(side / 2, 0.95 * side), anchor="md", align="center", font=font(side // 20))
        drawn.multiline_text(text=text, fill=(255, 255), stroke_width=3, stroke_fill=(0, 255), **place)
        layers.append(F.interpolate(pil_to_tensor(image)[None] / 255, size=SIZE, mode="bilinear")[0])
    for clip in out:
        first, when = (int(torch.randint(n, (), generator=generator)) for n in (len(TEXTS), FRAMES - 1))
        for t in range(FRAMES):
            white, alpha = layers[(first + (changes and t > when)) % len(TEXTS)]
            clip[:, t] += alpha * ((white - MEAN) / STD - clip[:, t])
    return out


def side_by_side(left: Tensor, right: Tensor) -> Tensor:
    """The middle of one clip beside the middle of another."""
    middle = slice(SIZE // 4, SIZE // 4 + SIZE // 2)
    return torch.cat((left[..., middle], right[..., middle]), -1)


def alike(labels: Tensor) -> Tensor:
    """(B,) for each clip another one of its class."""
    partner = torch.arange(len(labels))
    for label in labels.unique():
        (rows,) = (labels == label).nonzero(as_tuple=True)
        partner[rows] = rows.roll(1)
    return partner


# ---- screens ----


def page(picture: Image.Image, generator: torch.Generator) -> Image.Image:
    """Headings, paragraphs and a picture: (5 HEIGHT, WIDTH), dark on light or light on dark."""
    image = Image.new("RGB", (WIDTH, 5 * HEIGHT), "#ffffff")
    drawn = ImageDraw.Draw(image)
    y = 20
    while y < image.height:
        kind = float(torch.rand((), generator=generator))
        if kind < 0.15:
            image.paste(picture.resize((280, 180)), (60, y))
            y += 200
        size = 26 if kind < 0.3 else 14
        for _ in range(1 if kind < 0.3 else 5):
            count = 4 if kind < 0.3 else 11
            words = [WORDS[i] for i in torch.randint(len(WORDS), (count,), generator=generator).tolist()]
            drawn.text((60, y), " ".join(words), fill="#202020", font=font(size))
            y += round(1.4 * size)
        y += 18
    dark = torch.rand((), generator=generator) < 0.4
    return Image.eval(image, lambda value: 235 - round(0.85 * value)) if dark else image


def recorded(pages: list[Image.Image], scrolled: list[int], generator: torch.Generator) -> Tensor:
    """(T, HEIGHT, WIDTH, 3) uint8: of each frame's page what is in the window, a toolbar, and a pointer on its way."""
    pointer = torch.rand(2, 2, generator=generator) * torch.tensor([WIDTH, HEIGHT])
    frames = []
    for t, (image, y) in enumerate(zip(pages, scrolled, strict=True)):
        frame = image.crop((0, y, WIDTH, y + HEIGHT))
        drawn = ImageDraw.Draw(frame)
        drawn.rectangle((0, 0, WIDTH, TOOLBAR), fill="#d8dce2")
        drawn.rounded_rectangle((120, 10, 520, 34), 12, fill="#ffffff", outline="#b0b4ba")
        drawn.text((135, 14), "https://example.org/page", fill="#404040", font=font(14))
        x, y = (pointer[0] + (pointer[1] - pointer[0]) * t / (FRAMES - 1)).tolist()
        drawn.polygon([(x, y), (x, y + 18), (x + 5, y + 14), (x + 13, y + 13)], fill="#000000", outline="#ffffff")
        frames.append(pil_to_tensor(frame).permute(1, 2, 0))
    return torch.stack(frames)


# ---- the cases ----


@dataclass(eq=False)
class World:
    """What all cases are made of."""

    data: CameraMotion
    pictures: list[Image.Image]
    spec: ClipSpec  # how a screen becomes the model's input


@lru_cache(maxsize=1)  # several cases change the same clips
def plain(world: World, step: int) -> tuple[Tensor, Tensor]:
    clips, labels, _ = world.data[step]
    return clips, labels


def names(labels: Tensor) -> list[str | None]:
    return [LABELS[i] for i in labels.tolist()]


def as_they_are(world: World, step: int) -> Clips:
    clips, labels = plain(world, step)
    return clips, names(labels)


def subtitle(world: World, step: int, changes: bool) -> Clips:
    clips, labels = plain(world, step)
    return subtitled(clips, torch.Generator().manual_seed(SEED + step), changes), names(labels)


def split(world: World, step: int, same: bool) -> Clips:
    clips, labels = plain(world, step)
    if same:
        return side_by_side(clips, clips[alike(labels)]), names(labels)
    order = labels.argsort(stable=True)
    other = order.roll(BATCH // len(LABELS) + 1)  # there is another class
    return side_by_side(clips[order], clips[other]), [None] * len(order)


def screen(world: World, step: int, label: str) -> Clips:
    generator = torch.Generator().manual_seed(SEED + step)
    clips: list[Tensor] = []
    for number in range(BATCH):
        first, second = (page(world.pictures[(number + i) % len(world.pictures)], generator) for i in (0, 1))
        start = int(torch.randint(HEIGHT, 3 * HEIGHT, (), generator=generator))
        by = int(torch.randint(HEIGHT // 8, HEIGHT // 2, (), generator=generator))
        when = int(torch.randint(1, FRAMES, (), generator=generator))
        by *= {"tilt down": 1, "tilt up": -1}.get(label, 0)  # what is seen goes the other way
        scrolled = [start + round(by * t / (FRAMES - 1)) for t in range(FRAMES)]
        pages = [first] * when + [second if label == "cut" else first] * (FRAMES - when)
        clips.append(crop_views(recorded(pages, scrolled, generator), world.spec)[0])
    return torch.stack(clips), [label] * BATCH


CASES: dict[str, Callable[[World, int], Clips]] = {
    "as they are": as_they_are,
    "a subtitle": partial(subtitle, changes=False),
    "a subtitle that changes": partial(subtitle, changes=True),
    "split screen, both halves of one class": partial(split, same=True),
    "split screen, halves of two classes": partial(split, same=False),
    "screen at rest, but for the pointer": partial(screen, label="static"),
    "screen, the page scrolls down": partial(screen, label="tilt down"),
    "screen, the page scrolls up": partial(screen, label="tilt up"),
    "screen, another page": partial(screen, label="cut"),
}


@dataclass
class Answers:
    """To one case."""

    total: int = 0
    right: int = 0
    unclear: int = 0
    probability: float = 0.0  # summed
    mistakes: Counter[str] = field(default_factory=Counter)  # what was told instead
    worst: tuple[float, Tensor, str | None, str] | None = None  # the surest that is wrong: its probability and clip

    def add(self, clips: Tensor, truth: list[str | None], found: Tensor, labels: list[str]) -> None:
        for clip, label, p, best in zip(clips, truth, *(x.tolist() for x in found.max(1)), strict=True):
            self.total += 1
            self.probability += p
            self.unclear += p < UNCLEAR
            if label == labels[best]:
                self.right += 1
                continue
            self.mistakes[labels[best]] += 1
            if self.worst is None or p > self.worst[0]:
                self.worst = (p, clip, label, labels[best])

    def __str__(self) -> str:
        total, mistakes = self.total, ", ".join(f"{label} {n}" for label, n in self.mistakes.most_common(4))
        return (
            f"right {self.right} of {total} ({self.right / total:.1%}), unclear {self.unclear / total:.1%}, "
            f"{self.probability / total:.2f} sure; else told as {mistakes or 'nothing'}"
        )


def draw(rows: dict[str, Answers], path: Path) -> None:
    """The surest mistake of each case: its eight frames, twice as large as the model sees them."""
    side, line = 2 * SIZE, 24
    image = Image.new("RGB", (FRAMES * (side + 4) - 4, len(rows) * (side + line + 6)), "#ffffff")
    drawn = ImageDraw.Draw(image)
    for row, (name, answers) in enumerate(rows.items()):
        assert answers.worst is not None
        p, clip, label, told = answers.worst
        y = row * (side + line + 6)
        text = f"{name}: told as {told} ({p:.2f}); right: {label or 'none'}"
        drawn.text((0, y + 4), text, fill="#000000", font=font(15))
        for t in range(FRAMES):
            frame = to_pil_image((clip[:, t] * STD + MEAN).clamp(0, 1))
            image.paste(frame.resize((side, side), Image.Resampling.NEAREST), (t * (side + 4), y + line))
    path.parent.mkdir(exist_ok=True)
    image.quantize(128, dither=Image.Dither.NONE).save(path, optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", type=Path, help="folder that fetch_sources.py filled")
    parser.add_argument("--batches", type=int, default=10, help=f"of {BATCH} clips, for each case")
    parser.add_argument("--draw", type=Path, help="a picture of the surest mistakes")
    args = parser.parse_args()
    torch.set_num_threads(1)
    model, labels = load_weights(DEFAULT)
    held_out = [source for source in load_sources(args.sources, "test") if source.name in SHOWN]
    data = CameraMotion(held_out, BATCH, args.batches, SEED, augment=False, footage=0.5)
    pictures = [to_pil_image(source.levels[0][0]) for source in held_out if not source.is_video]
    world = World(data, pictures, clip_spec(model))
    answers = {name: Answers() for name in CASES}
    for step in range(args.batches):
        for name, case in CASES.items():
            clips, truth = case(world, step)
            answers[name].add(clips, truth, probabilities(model, clips), labels)
    for name, answer in answers.items():
        print(f"{name}: {answer}")
    if args.draw:
        draw({name: answers[name] for name in DRAWN if answers[name].worst}, args.draw)


if __name__ == "__main__":
    main()
