"""The picture of a timeline: a film that is made here, shot by shot, and what the embedded model sees in it.

    python examples/draw_timeline.py docs/figures/timeline.png

A shot is a camera over a picture of noise, as `draw_search.py` makes them; the next one has another picture.
"""

import os
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import draw_search
import torch
from draw_search import MOVES, scenery, shot, write

from timesformer_zoo_cli import main

SHOTS = ["right", "in", "left", "down", "right", "down", "in", "left"]
draw_search.SECONDS = 4  # of a shot


def draw(path: Path) -> None:
    generator = torch.Generator().manual_seed(5)
    path = path.absolute()
    with TemporaryDirectory() as folder:
        os.chdir(folder)  # so that the name in the picture is short
        write(Path("film.mp4"), torch.cat([shot(scenery(generator), MOVES[move]) for move in SHOTS]).numpy())
        main(["timeline", "film.mp4", "-o", str(path), "--device", "cpu"])
        os.chdir(path.parent)


if __name__ == "__main__":
    draw(Path(sys.argv[1]))
