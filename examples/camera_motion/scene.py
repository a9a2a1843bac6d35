"""What the camera sees of a background: pictures and footage along paths, with depth and things that sway.

Legend: B clips, T frames, S pixels of a frame's side; places are px of a frame of 64 x 64 from its centre, x right,
y down.
"""

from __future__ import annotations

import torch
from bank import LEVELS, Bank
from camera_paths import Paths
from draw import Draw
from synthetic_protocol import FRAMES
from torch import Tensor
from torch.nn import functional as F

MIDDLE = FRAMES // 2
EMPTIED = 0.15  # share of the pictures and textures of which parts show next to nothing
MOST_PIXELS = 8.0  # source pixels to an output pixel: what a frame of 512 lines has, shown in 64


def raster(size: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """x (1, S) and y (S, 1) of the pixels of a frame."""
    axis = (torch.arange(size, device=device) - (size - 1) / 2) * (64 / size)
    return axis[None], axis[:, None]


def nearness(draw: Draw, b: int, size: int, share: float) -> Tensor:
    """(B, S, S) how fast each place moves when the camera does, 1 on average; for `share` of the clips not all alike.

    A ground plane below a far horizon, a tilted wall, hills. It stays with the lens, as it does over an endless plane.
    """
    x, y = (a / 32 for a in raster(size, draw.device))
    x, y = x.expand(size, size), y.expand(size, size)
    horizon, tilt = draw.between(-1.2, 0.3, b, 1, 1), draw.between(-0.25, 0.25, b, 1, 1)
    ground = draw.between(0.05, 0.35, b, 1, 1) + (y - horizon + tilt * x).clamp(min=0)
    angle = draw.between(0, 6.2832, b, 1, 1)
    wall = 1 + draw.between(0.25, 0.75, b, 1, 1) * (angle.cos() * x + angle.sin() * y)
    hills = F.interpolate(draw.normal(b, 1, 4, 4), size=(size, size), mode="bicubic", align_corners=True)[:, 0]
    hills = (hills * draw.between(0.2, 0.6, b, 1, 1)).exp()
    kind = draw.choice((1 - share, 0.4 * share, 0.3 * share, 0.3 * share), b)[:, None, None]
    near = torch.where(kind == 1, ground, torch.where(kind == 2, wall, torch.where(kind == 3, hills, 1.0)))
    near = near.clamp(min=0.05)
    near = (near / near.mean((1, 2), keepdim=True)).clamp(max=3)
    return near / near.mean((1, 2), keepdim=True)


def sway(draw: Draw, b: int, size: int, share: float) -> Tensor:
    """(B, T, S, S, 2) px that leaves, water or crowds move by, there and back, in a part of the picture."""
    n = max(1, round(share * b))
    field = draw.normal(n, 2, 2, 5, 5) * draw.between(0.3, 2.0, n, 1, 1, 1, 1)
    time = torch.linspace(0, 1, FRAMES, device=draw.device)
    phase = 6.2832 * (draw.between(0.4, 3, n, 2, 1) * time + draw.rand(n, 2, 1))
    swing = phase.sin() - phase.sin().mean(2, keepdim=True)
    moved = torch.einsum("nmt,nmchw->ntchw", swing, field)
    mask = (2 * F.interpolate(draw.normal(n, 1, 3, 3), size=(5, 5), mode="bilinear", align_corners=True)).sigmoid()
    moved = F.interpolate((moved * mask[:, None]).flatten(0, 1), size=(size, size), mode="bicubic", align_corners=True)
    out = torch.zeros(b, FRAMES, size, size, 2, device=draw.device)
    out[draw.rows(b, n)] = moved.view(n, FRAMES, 2, size, size).permute(0, 1, 3, 4, 2)
    return out


def view(paths: Paths, near: Tensor) -> Tensor:
    """(B, T, S, S, 2) places that the pixels of each frame see, about the middle frame; near is (B, S, S)."""
    x, y = raster(near.shape[-1], near.device)
    motion = paths.motion.clone()
    motion[..., :3] -= paths.motion[:, MIDDLE : MIDDLE + 1, :3]  # depth pulls from there; the angle has none
    base = paths.base.clone()
    base[:, 0] += paths.motion[:, MIDDLE, 2]
    field = near[:, None]
    px, py = (a[:, None, None, None] for a in paths.fixed.unbind(1))
    dx, dy, zoom, roll = (a[..., None, None] for a in motion.unbind(2))
    scale = (zoom * field).exp()
    c, s = scale * roll.cos(), scale * roll.sin()
    u, v = x - px, y - py
    u, v = px + c * u - s * v + dx * field, py + s * u + c * v + dy * field
    scale, angle = base[:, 0, None, None, None].exp(), base[:, 1, None, None, None]
    c, s = scale * angle.cos(), scale * angle.sin()
    u, v = c * u - s * v, s * u + c * v
    lx, ly, lz = (a[..., None, None] for a in paths.leap.unbind(2))
    return torch.stack((u * lz.exp() + lx, v * lz.exp() + ly), -1)


def placed(draw: Draw, places: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """Places (B, T, S, S, 2) -> grid_sample's coordinates in a square of `side` pixels; source px to an output px (B,).

    The view is as large as it may be and fit, or smaller; anywhere; mirrored, and now and then turned by a quarter.
    """
    b = len(places)
    flat = places.flatten(1, 3)
    low, high = flat.amin(1), flat.amax(1)  # (B, 2)
    largest = ((side - 1) / (high - low).amax(1)).clamp(max=MOST_PIXELS)
    smallest = torch.minimum((largest / 3).clamp(min=0.7), largest)
    zoom = smallest * (largest / smallest).pow(draw.rand(b).pow(0.35))
    room = side - 1 - (high - low) * zoom[:, None]
    offset = room.clamp(min=0) * draw.rand(b, 2) - low * zoom[:, None]
    grid = places * zoom.view(b, 1, 1, 1, 1) + offset.view(b, 1, 1, 1, 2)
    # Of a much larger picture a frame takes single points: next to no filter, and sharper than any.
    points = draw.chance(0.35, b) & (zoom > 2)
    grid = torch.where(points.view(b, 1, 1, 1, 1), grid.round(), grid)
    grid = grid * (2 / (side - 1)) - 1
    turn = draw.chance(0.2, b)
    flip = torch.stack((draw.sign(b), torch.where(turn, draw.sign(b), torch.ones(b, device=draw.device))), 1)
    grid = grid * flip.view(b, 1, 1, 1, 2)
    return torch.where(turn.view(b, 1, 1, 1, 1), grid.flip(-1), grid), zoom


def level_of(draw: Draw, zoom: Tensor, levels: int) -> Tensor:
    """(B,) the level that a view samples: the one that fits for some of the clips, a finer one for the others."""
    fitting = (zoom / 1.2).log2().ceil().clamp(0, levels - 1)
    finer = draw.choice((0.2, 0.2, 0.6), len(zoom))
    return (fitting - finer).clamp(min=0).long()


def emptied(draw: Draw, tiles: Tensor) -> Tensor:
    """Pictures (n, 3, W, W), with parts of them, or all, painted over in about one colour: walls, skies, tables."""
    n, side = len(tiles), tiles.shape[-1]
    mask = 3 * draw.normal(n, 1, 4, 4) + draw.between(-1, 4, n, 1, 1, 1)
    mask = F.interpolate(mask.sigmoid(), size=(side, side), mode="bilinear", align_corners=True)
    colour = draw.normal(n, 3, 2, 2) * 12 + draw.rand(n, 1, 1, 1) * 200 + draw.rand(n, 3, 1, 1) * 55
    colour = F.interpolate(colour, size=(side, side), mode="bilinear", align_corners=True)
    return tiles + mask * draw.between(0.8, 1, n, 1, 1, 1) * (colour.clamp(0, 255) - tiles)


def backgrounds(
    draw: Draw, bank: Bank, paths: Paths, size: int, strength: float = 1.0, footage: float = 0.25, pictures: float = 0.7
) -> Tensor:
    """Clips (B, 3, T, S, S) in [0, 1] of the camera paths.

    The first rows, a `footage` share, are seen in footage; of the others a `pictures` share in pictures, the rest in
    textures.
    """
    b = len(paths.motion)
    near = nearness(draw, b, size, 0.5 * strength)
    places = view(paths, near) + sway(draw, b, size, 0.2 * strength)
    n = min(b, round(footage * b)) if len(bank.starts) else 0
    clips = []
    if n:
        grid, zoom = placed(draw, places[:n], bank.frames.shape[-1])
        start = bank.starts[draw.pick(bank.chances, n)]
        index = start[:, :1] + start[:, 1:] * torch.arange(FRAMES, device=draw.device)
        window = bank.frames[level_of(draw, zoom, 2)[:, None], index].flatten(0, 1).float()
        seen = F.grid_sample(window, grid.flatten(0, 1), padding_mode="border", align_corners=True)
        clips.append(seen.view(n, FRAMES, 3, size, size).transpose(1, 2))
    if n < b:
        rest, total = b - n, bank.tiles.shape[1]
        grid, zoom = placed(draw, places[n:], bank.tiles.shape[-1])
        picture = draw.pick(bank.tile_chances, rest) if bank.pictures else draw.whole(1, rest)
        other = bank.pictures + draw.whole(max(1, total - bank.pictures), rest)
        chosen = torch.where(draw.chance(pictures, rest), picture, other).clamp(max=total - 1)
        tiles = bank.tiles[level_of(draw, zoom, LEVELS), chosen].float()
        few = round(EMPTIED * strength * rest)
        if few:
            tiles[:few] = emptied(draw, tiles[:few])
        flat = grid.reshape(rest, FRAMES * size, size, 2)
        seen = F.grid_sample(tiles, flat, padding_mode="border", align_corners=True)
        clips.append(seen.view(rest, 3, FRAMES, size, size))
    return torch.cat(clips) / 255
