"""Generated footage with known camera motion: a painted landscape, over which a window moves, one for each seed."""

from pathlib import Path

import numpy as np
import torch
from footage import write
from PIL import Image, ImageDraw

WIDTH, HEIGHT = 1600, 720


def landscape(seed: int) -> Image.Image:
    """A sky, hills one behind the other, and trees and houses on the nearest."""
    random = np.random.default_rng(seed)
    top, low = random.integers((80, 130, 200), (150, 180, 250)), random.integers((200, 200, 180), 250)
    share = np.linspace(0, 1, HEIGHT)[:, None, None]
    sky = np.broadcast_to(top * (1 - share) + low * share, (HEIGHT, WIDTH, 3))
    image = Image.fromarray(sky.astype(np.uint8))
    draw = ImageDraw.Draw(image)
    x = np.arange(WIDTH)
    for layer in range(5):
        waves = sum(
            random.uniform(8, 40) * np.sin(x / random.uniform(40, 260) + random.uniform(0, 7)) for _ in range(4)
        )
        y = 220 + 90 * layer + waves
        colour = tuple(int(c) for c in random.integers((60, 80, 40), (150, 160, 110)))
        draw.polygon([(0, HEIGHT), *zip(x.tolist(), y.tolist(), strict=True), (WIDTH, HEIGHT)], fill=colour)
        for at in random.integers(0, WIDTH, 18):
            size, foot = int(random.integers(12, 26 + 12 * layer)), float(y[at])
            if random.random() < 0.6:  # a tree
                green = tuple(int(c) for c in random.integers((10, 50, 20), (70, 110, 60)))
                draw.polygon([(at - size / 2, foot), (at, foot - 2 * size), (at + size / 2, foot)], fill=green)
            else:
                wall = tuple(int(c) for c in random.integers(200, 250, 3))
                draw.rectangle([at - size / 2, foot - size, at + size / 2, foot], fill=wall)
                roof = [(at - size / 1.5, foot - size), (at, foot - 1.6 * size), (at + size / 1.5, foot - size)]
                draw.polygon(roof, fill=(int(random.integers(130, 190)), 60, 40))
    return image


def film(path: Path, motions: str, seed: int = 0, seconds: float = 3) -> Path:
    """A video of 320 × 180 pixels, 25 frames a second; each motion (static, right, left, in) lasts as long."""
    image = landscape(seed)
    x, y, zoom = WIDTH / 2, 400.0, 1.0
    frames = []
    for motion in motions.split():
        for _ in range(round(25 * seconds)):
            x += {"right": 6, "left": -6}.get(motion, 0)
            zoom *= 1.01 if motion == "in" else 1
            box = (x - 240 / zoom, y - 135 / zoom, x + 240 / zoom, y + 135 / zoom)
            shown = image.resize((320, 180), Image.Resampling.BILINEAR, box)
            frames.append(torch.from_numpy(np.array(shown)))
    return write(path, torch.stack(frames))
