"""Pack the training sources into one file that travels: tiles of pictures, textures, and footage at rest.

    python examples/camera_motion/pack_sources.py sources/ sources.pt

Pictures become square tiles of 384 px: a few that show all of the picture, and, of a large one, a few of its parts.
Footage becomes square frames of 192 px, of stretches during which its own camera rests. The file holds WebP and JPEG
bytes, about 30 MB, and needs nothing but Pillow to be read (`bank.py`).
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path

import torch
from bank import FRAME, TILE
from PIL import Image
from synthetic_protocol import IMAGE_SUFFIXES, VIDEO_SUFFIXES, resting
from textures import texture
from torch import Tensor
from torch.nn import functional as F

TEXTURES = 260
FRAMES_A_FILM = 500
RATE = 15  # frames a second that are kept


def squares(width: int, height: int) -> list[tuple[int, int, int]]:
    """(left, top, side) of the tiles of a picture: along its longer side, and, of a large one, quarter by quarter."""
    side, long = min(width, height), max(width, height)
    n = min(4, max(1, round(1.4 * long / side)))
    offsets = (
        [round((long - side) * i / max(1, n - 1)) for i in range(n)] if long > 1.15 * side else [(long - side) // 2]
    )
    found = [(o, 0, side) if width >= height else (0, o, side) for o in offsets]
    if side >= 1.6 * TILE:
        part = max(TILE, side // 2)
        found += [(x, y, part) for x in (0, width - part) for y in (0, height - part)]
        found += [((width - part) // 2, (height - part) // 2, part)]
    return found


def tiles_of(path: Path) -> list[bytes]:
    """WebP bytes of the tiles of a picture; none if it is too small."""
    with Image.open(path) as image:
        rgb = image.convert("RGB")
    if min(rgb.size) < 200:
        return []
    found = []
    for left, top, side in squares(*rgb.size):
        tile = rgb.resize((TILE, TILE), Image.Resampling.LANCZOS, (left, top, left + side, top + side))
        found.append(encoded(tile, "WEBP", 82))
    return found


def encoded(image: Image.Image, suffix: str, quality: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, suffix, quality=quality)
    return buffer.getvalue()


def as_image(pixels: Tensor) -> Image.Image:
    """(3, H, W) uint8 -> a picture."""
    return Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())


def footage_of(path: Path) -> list[tuple[list[bytes], list[tuple[int, int]]]]:
    """Square films of a video: JPEG frames, and the stretches (first frame, stride) with a resting camera."""
    import decord

    decord.logging.set_level(decord.logging.QUIET)
    reader = decord.VideoReader(str(path))
    height, width = reader[0].shape[:2]
    scale = min(height, width) / FRAME
    reader = decord.VideoReader(
        str(path), width=max(FRAME, round(width / scale)), height=max(FRAME, round(height / scale))
    )
    every = max(1, round(reader.get_avg_fps() / RATE))
    indices = list(range(0, len(reader), every))[:FRAMES_A_FILM]
    pixels = torch.from_numpy(reader.get_batch(indices).asnumpy()).permute(0, 3, 1, 2)
    height, width = pixels.shape[-2:]
    films = []
    offsets = {0, width - FRAME} if width - FRAME > 0.15 * FRAME else {(width - FRAME) // 2}
    for left in sorted(offsets):
        film = pixels[:, :, :FRAME, left : left + FRAME]
        if starts := resting(film, strides=(1, 2)):
            films.append(([encoded(as_image(frame), "JPEG", 85) for frame in film], list(starts)))
    return films


def pack(folder: Path, textures: int = TEXTURES) -> dict[str, object]:
    """Everything of `folder/train`; frames that no stretch uses are left out.

    "owners" and "films" number the picture of each tile and the film of each stretch.
    """
    pictures: list[bytes] = []
    frames: list[bytes] = []
    owners: list[int] = []
    starts, films, count = [], [], 0
    for path in sorted(p for p in (folder / "train").rglob("*") if p.is_file()):
        if path.suffix.lower() in IMAGE_SUFFIXES:
            found = tiles_of(path)
            pictures += found
            owners += [count] * len(found)
            count += 1
            print(f"{path.name}: {len(found)} tiles")
        elif path.suffix.lower() in VIDEO_SUFFIXES:
            for film, stretches in footage_of(path):
                used = sorted({i for first, stride in stretches for i in range(first, first + 7 * stride + 1)})
                place = {index: len(frames) + i for i, index in enumerate(used)}
                frames += [film[index] for index in used]
                starts += [(place[first], stride) for first, stride in stretches]
                films += [count] * len(stretches)
                count += 1
                print(f"{path.name}: {len(used)} frames, {len(stretches)} stretches")
    generator = torch.Generator().manual_seed(0)
    painted = []
    for _ in range(textures):
        image = F.interpolate(texture(generator, 256)[None], size=TILE, mode="bilinear", align_corners=False)[0]
        painted.append(encoded(as_image((image * 255).round().to(torch.uint8)), "WEBP", 75))
    return {
        "pictures": pictures,
        "owners": torch.tensor(owners),
        "textures": painted,
        "frames": frames,
        "starts": torch.tensor(starts).view(-1, 2),
        "films": torch.tensor(films),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", type=Path, help="folder that fetch_sources.py filled")
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    packed = pack(args.sources)
    torch.save(packed, args.out)
    print({k: len(v) for k, v in packed.items()}, f"{args.out.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
