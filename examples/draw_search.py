"""The picture of a search: films that are made here, a library of them, and what is like the part of one.

    python examples/draw_search.py docs/figures/search.png

A film is a camera over a picture of noise. Each has two moves of two seconds; a part that pans right is looked for.
"""

import os
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import av
import numpy as np
import torch
from torch.nn import functional as F

from timesformer_zoo_cli import main

FPS, HEIGHT, WIDTH, SECONDS = 25, 96, 160, 2
MOVES = {"right": (1, 0, 0), "left": (-1, 0, 0), "down": (0, 1, 0), "in": (0, 0, 1)}  # of the camera: x, y, zoom
FILMS = {
    "one": ("right", "in"),
    "two": ("left", "right"),
    "three": ("down", "left"),
    "four": ("in", "right"),
    "five": ("left", "down"),
}


def scenery(generator: torch.Generator) -> torch.Tensor:
    """(1, 3, H, W) in [0, 1]: blots of all sizes, between two colours."""
    octaves = [torch.randn(1, 1, 4 * 2**i, 6 * 2**i, generator=generator) / 1.5**i for i in range(6)]
    noise = sum(F.interpolate(octave, size=(384, 640), mode="bicubic") for octave in octaves)
    dark, light = 0.1 + 0.3 * torch.rand(3, generator=generator), 0.6 + 0.35 * torch.rand(3, generator=generator)
    return torch.lerp(dark.view(1, 3, 1, 1), light.view(1, 3, 1, 1), torch.sigmoid(3 * noise))


def shot(picture: torch.Tensor, move: tuple[int, int, int]) -> torch.Tensor:
    """(T, H, W, 3) uint8 of one move."""
    t = torch.linspace(-0.5, 0.5, FPS * SECONDS)
    scale = 0.35 * torch.exp(-0.9 * move[2] * t)  # of the picture's size
    theta = torch.zeros(len(t), 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = scale
    theta[:, 0, 2], theta[:, 1, 2] = 0.6 * move[0] * t, 0.6 * move[1] * t
    grid = F.affine_grid(theta, [len(t), 3, HEIGHT, WIDTH], align_corners=False)
    frames = F.grid_sample(picture.expand(len(t), -1, -1, -1), grid, align_corners=False)
    return (255 * frames).round().to(torch.uint8).permute(0, 2, 3, 1)


def write(path: Path, frames: np.ndarray) -> None:
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=FPS, options={"crf": "14"})
        stream.height, stream.width, stream.pix_fmt = HEIGHT, WIDTH, "yuv420p"
        for frame in frames:
            out.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        out.mux(stream.encode())


def draw(path: Path) -> None:
    generator = torch.Generator().manual_seed(3)
    path = path.absolute()
    with TemporaryDirectory() as folder:
        os.chdir(folder)  # so that the names in the picture are short
        for film, moves in FILMS.items():
            picture = scenery(generator)
            write(Path(f"{film}.mp4"), torch.cat([shot(picture, MOVES[move]) for move in moves]).numpy())
        main(["embed", *(f"{film}.mp4" for film in FILMS), "-o", "library", "--device", "cpu"])
        part = ["--start", "0.2", "--end", "1.8", "--topk", "4", "--device", "cpu"]
        main(["search", "library", "one.mp4", *part, "-o", str(path)])
        os.chdir(path.parent)


if __name__ == "__main__":
    draw(Path(sys.argv[1]))
