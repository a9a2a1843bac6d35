"""Pictures, textures and footage in the memory of a device, laid out so that a batch is a few gathers.

Pictures and textures are square tiles, footage is square frames and where stretches of it start. All are uint8. Levels
are halved pictures, stored at full size again so that one tensor holds all: sampling level 0 far apart shows aliasing,
as frames do that were scaled down without a filter; sampling a level that fits shows none.

Legend: N tiles, F frames of footage, L levels, W and V sides in pixels.
"""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

LEVELS = 3
TILE, FRAME = 384, 192  # W and V of what pack_sources.py writes


@dataclass
class Bank:
    """What clips are made from. The first `pictures` tiles are pictures, the others are textures."""

    tiles: Tensor  # (L, N, 3, W, W) uint8
    small: Tensor  # (N, 3, W / 4, W / 4) uint8, for what moves in front
    pictures: int
    tile_chances: Tensor  # (pictures,) how often each is to be shown: a picture in proportion to the root of its tiles
    frames: Tensor  # (2, F, 3, V, V) uint8, two levels
    starts: Tensor  # (M, 2): first frame and stride of stretches while the camera rests
    chances: Tensor  # (M,) likewise, a film in proportion to the root of its length

    @property
    def device(self) -> torch.device:
        return self.tiles.device


def halved(x: Tensor, times: int) -> Tensor:
    """(..., 3, W, W) uint8 -> the same size, with the detail of a picture halved so many times."""
    small = F.avg_pool2d(x.flatten(0, -4).float(), 2**times)
    full = F.interpolate(small, size=x.shape[-2:], mode="bilinear", align_corners=False)
    return full.round().to(torch.uint8).view(x.shape)


def chances_of(owners: Tensor) -> Tensor:
    """(N,) owners, numbered from 0 -> (N,) such that an owner of n is seen √n times as often as an owner of one."""
    return owners.bincount()[owners].float().rsqrt() if len(owners) else owners.float()


def make_bank(tiles: Tensor, owners: Tensor, frames: Tensor, starts: Tensor, films: Tensor) -> Bank:
    """Lay out (N, 3, W, W) tiles and (F, 3, V, V) frames, both uint8, on the device that they are on.

    `owners` numbers the pictures of the first tiles, `films` (M,) the films of the stretches.
    """

    def levels(x: Tensor, n: int) -> Tensor:
        out = x.new_empty(n, *x.shape)
        out[0] = x
        for level in range(1, n):
            for i in range(0, len(x), 64):
                out[level, i : i + 64] = halved(x[i : i + 64], level)
        return out

    small = torch.cat([F.avg_pool2d(part.float(), 4) for part in tiles.split(64)]).round().to(torch.uint8)
    return Bank(
        levels(tiles, LEVELS), small, len(owners), chances_of(owners), levels(frames, 2), starts, chances_of(films)
    )


def decoded(packed: list[bytes], side: int, threads: int = 8) -> Tensor:
    """Encoded square pictures -> (N, 3, side, side) uint8."""

    def one(content: bytes) -> Tensor:
        with Image.open(io.BytesIO(content)) as image:
            rgb = image.convert("RGB")
        pixels = torch.frombuffer(bytearray(rgb.tobytes()), dtype=torch.uint8)
        return pixels.view(rgb.height, rgb.width, 3).permute(2, 0, 1)

    with ThreadPoolExecutor(threads) as pool:
        return torch.stack(list(pool.map(one, packed))) if packed else torch.empty(0, 3, side, side, dtype=torch.uint8)


def load_bank(path: str | Path, device: torch.device | str = "cpu", most: int | None = None) -> Bank:
    """The bank that pack_sources.py wrote; `most` keeps so many of the pictures and of the textures, for a trial."""
    packed = torch.load(path, weights_only=True)
    kept = slice(None, most)
    pictures, textures = (decoded(packed[name][kept], TILE) for name in ("pictures", "textures"))
    tiles = torch.cat((pictures, textures)).to(device)
    frames = decoded(packed["frames"], FRAME).to(device)
    starts, films = packed["starts"].to(device), packed["films"].to(device)
    return make_bank(tiles, packed["owners"][kept].to(device), frames, starts, films)
