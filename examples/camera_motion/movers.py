"""What is before the background: things that move of their own, subjects that the camera follows, parts of the lens.

A mover is a soft shape with a texture that bends and goes its way. The label stays what the background does.

Legend: B clips, n movers, T frames, S pixels; places are px of a frame of 64 x 64 from its centre.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from bank import Bank
from camera_paths import Paths, progress, wander
from draw import Draw
from scene import MIDDLE, raster
from synthetic_protocol import FRAMES
from torch import Tensor
from torch.nn import functional as F

LAYERS = (0.9, 0.65, 0.45, 0.3, 0.2)  # share of the clips that have a first, second, ... mover
CANVAS = 48  # pixels of a shape's side


def shapes(draw: Draw, n: int) -> Tensor:
    """(n, 1, CANVAS, CANVAS) of how far inside a shape a place is, negative outside: one to half of the side is 1.

    Stars of few harmonics, boxes, ellipses, blobs, polygons, limbs; they fill about 0.45 of the canvas.
    """
    axis = torch.linspace(-1, 1, CANVAS, device=draw.device)
    y, x = axis[None, :, None], axis[None, None, :]
    radius, angle = (x.square() + y.square()).sqrt(), torch.atan2(y, x)
    k = torch.arange(1, 7, device=draw.device).view(1, 6, 1, 1)
    waves = draw.rand(n, 6, 1, 1) * 0.55 / k * torch.cos(k * angle[:, None] + 6.2832 * draw.rand(n, 6, 1, 1))
    star = 0.62 + 0.5 * waves.sum(1) - radius
    box = (0.75 - torch.maximum(x.abs(), y.abs())).expand(n, -1, -1)
    ellipse = (0.75 - radius).expand(n, -1, -1)
    noise = F.interpolate(draw.normal(n, 1, 5, 5), size=(CANVAS, CANVAS), mode="bicubic", align_corners=True)[:, 0]
    blob = 0.35 * noise + 0.72 - radius
    corners = 5
    turn = ((torch.arange(corners, device=draw.device) + 0.8 * draw.rand(n, corners)) * (2 * math.pi / corners))[
        ..., None, None
    ]
    sides = draw.between(0.35, 0.75, n, corners, 1, 1) - (turn.cos() * x[:, None] + turn.sin() * y[:, None])
    polygon = sides.amin(1)
    bend = draw.between(-1.25, 1.25, n, 1, 1)
    lx, ly = bend.cos() * x + bend.sin() * y, bend.cos() * y - bend.sin() * x
    upper = torch.minimum(0.24 - x.abs(), 0.5 - (y + 0.45).abs())
    lower = torch.minimum(0.2 - lx.abs(), 0.5 - (ly - 0.4).abs())
    limb = torch.maximum(torch.maximum(upper, lower), 0.22 - (x.square() + (y + 0.75).square()).sqrt())
    every = torch.stack((star, box, ellipse, blob, polygon, limb), 1)
    chosen = every[torch.arange(n, device=draw.device), draw.choice((3, 1, 1, 3, 1.5, 2), n)]
    inside = torch.minimum(1 - x.abs(), 1 - y.abs()) - 0.03
    return torch.minimum(chosen, inside)[:, None]


@dataclass
class Course:
    """Where movers are: (n, T) each."""

    x: Tensor
    y: Tensor
    zoom: Tensor  # log scale
    angle: Tensor


def courses(draw: Draw, camera: Tensor, fixed: Tensor, half: Tensor, strength: float) -> Course:
    """Ways of n movers of half sides `half` (n,) px before cameras (n, T, 4) that zoom and turn about `fixed` (n, 2).

    Going their way, also in and out of the frame; followed by the camera or fixed to the lens; standing in the world,
    nearer than the background or as far; in their place, but restless.
    """
    n = len(camera)
    kind = draw.choice((0.42, 0.2, 0.18, 0.2), n)[:, None]  # the first are free
    lens, near, restless = (kind == i for i in (1, 2, 3))
    # Where: anywhere, often at the border; what the camera follows is rather in the middle or stands at the lower edge.
    x, y = draw.between(-36, 36, n, 1), draw.between(-36, 36, n, 1)
    edge, upright = draw.chance(0.35, n, 1), draw.chance(0.5, n, 1)
    x = torch.where(edge & upright, 32 * draw.sign(n, 1), x)
    y = torch.where(edge & ~upright, 32 * draw.sign(n, 1), y)
    kept = lens | restless
    low = draw.chance(0.5, n, 1)
    x = torch.where(kept, draw.between(-16, 16, n, 1), x)
    y = torch.where(kept, torch.where(low, draw.between(8, 30, n, 1), draw.between(-14, 14, n, 1)), y)
    # How: straight on, to and fro, or both ways at once; large things may be as fast as small ones.
    speed = draw.log_between(3, 40 + 60 * strength, n, 1)
    way = draw.between(0, 2 * math.pi, n, 1)
    course, idle = progress(draw, n, 1)[..., 0] - 0.5, wander(draw, n, 4) * 0.5
    straight = draw.chance(0.65, n, 1)
    dx = speed * torch.where(straight, course * way.cos(), idle[..., 0])
    dy = speed * torch.where(straight, course * way.sin(), idle[..., 1])
    grow, turn = draw.chance(0.4, n, 1), draw.chance(0.5, n, 1)
    steady = draw.chance(0.5, n, 1)
    dz = grow * draw.between(-1, 1, n, 1) * torch.where(steady, course, idle[..., 2])
    da = turn * draw.between(-1.6, 1.6, n, 1) * torch.where(steady, progress(draw, n, 1)[..., 0] - 0.5, idle[..., 3])
    calm = torch.where(lens, 0.12 * draw.rand(n, 1), torch.where(restless, 0.25 * draw.rand(n, 1), 1.0))
    calm = torch.where(near & draw.chance(0.6, n, 1), 0.0, calm)
    dx, dy, dz, da = dx * calm, dy * calm, dz * calm.sqrt(), da * calm.sqrt()
    # What stands in the world goes the other way of the camera, the faster the nearer.
    follow = torch.where(near, draw.between(0.8, 2.2, n, 1), torch.where(restless, draw.between(0.7, 1.2, n, 1), 0.0))
    world = (follow > 0).float()
    move = camera - camera[:, MIDDLE : MIDDLE + 1]
    zoom, roll = -move[..., 2] * world, -move[..., 3] * world
    ux, uy = x - fixed[:, :1], y - fixed[:, 1:]
    c, s = zoom.exp() * roll.cos(), zoom.exp() * roll.sin()
    seen_x = fixed[:, :1] + c * ux - s * uy - follow * move[..., 0]
    seen_y = fixed[:, 1:] + s * ux + c * uy - follow * move[..., 1]
    return Course(seen_x + dx, seen_y + dy, zoom + dz, roll + da)


def bending(draw: Draw, n: int, size: int) -> Tensor:
    """(n, T, S, S, 2) of how limbs and cloth bend, in half sides of a mover; none for four in ten."""
    swing = torch.cat((wander(draw, n, 1), progress(draw, n, 1) - 0.5), 2)
    field = draw.normal(n, 2, 2, 4, 4) * (0.4 * draw.rand(n, 1, 1, 1, 1) * draw.chance(0.6, n, 1, 1, 1, 1))
    bent = torch.einsum("ntm,nmchw->ntchw", swing, field).flatten(0, 1)
    bent = F.interpolate(bent, size=(size, size), mode="bicubic", align_corners=True)
    return bent.view(n, FRAMES, 2, size, size).permute(0, 1, 3, 4, 2)


def crops(draw: Draw, bank: Bank, places: Tensor, half: Tensor) -> Tensor:
    """(n, 3, T, S, S) what movers of half sides (n,) px are painted with at places (n, T, S, S, 2) of theirs, in -1..1.

    A piece of a picture or a texture, from gaudy to plain.
    """
    n, size = len(places), places.shape[2]
    side = bank.small.shape[-1]
    reach = (half * draw.log_between(0.7, 2.5, n) / side * 2).clamp(max=0.9)[:, None]  # of the tile's half side
    centre = draw.between(-1, 1, n, 2) * (1 - reach)
    grid = (places * reach.view(n, 1, 1, 1, 1) + centre.view(n, 1, 1, 1, 2)).reshape(n, FRAMES * size, size, 2)
    other = draw.whole(len(bank.small), n)
    picture = draw.pick(bank.tile_chances, n) if bank.pictures else other
    tiles = bank.small[torch.where(draw.chance(0.6, n), picture, other)].float() / 255
    seen = F.grid_sample(tiles, grid, padding_mode="reflection", align_corners=True).view(n, 3, FRAMES, size, size)
    plain = draw.rand(n, 1, 1, 1, 1).pow(2) * draw.chance(0.5, n, 1, 1, 1, 1)
    gain, tint = draw.between(0.6, 1.4, n, 1, 1, 1, 1), draw.between(-0.25, 0.25, n, 3, 1, 1, 1)
    return (seen + plain * (draw.rand(n, 3, 1, 1, 1) - seen)) * gain + tint


def composed(draw: Draw, under: Tensor, alpha: Tensor, paint: Tensor) -> tuple[Tensor, Tensor]:
    """Movers (n, 3, T, S, S) over clips by alpha (n, 1, T, S, S), and how much they hide (n, T, S, S).

    Most are opaque; some are shadows, glass, or lights.
    """
    n = len(under)
    kind = draw.choice((0.76, 0.13, 0.07, 0.04), n).view(n, 1, 1, 1, 1)
    gain = draw.between(0.35, 0.85, n, 1, 1, 1, 1)
    shadow = under * gain
    glass = 0.5 * (under + paint)
    light = under + gain * draw.rand(n, 3, 1, 1, 1)
    colour = torch.where(kind == 0, paint, torch.where(kind == 1, shadow, torch.where(kind == 2, glass, light)))
    hides = torch.where(kind == 0, 1.0, torch.where(kind == 2, 0.5, 0.0))
    return under + alpha * (colour.clamp(0, 1) - under), (alpha * hides)[:, 0]


def add_movers(draw: Draw, bank: Bank, clips: Tensor, paths: Paths, strength: float = 1.0) -> tuple[Tensor, Tensor]:
    """Clips (B, 3, T, S, S) with movers, and how much of the background they hide (B, T, S, S)."""
    b, size = len(clips), clips.shape[-1]
    x, y = raster(size, clips.device)
    hidden = torch.zeros(b, FRAMES, size, size, device=clips.device)
    first = clips
    clips = clips.clone()
    anchor_x, anchor_y = (draw.between(-20, 20, b, 1).expand(b, FRAMES).clone() for _ in range(2))
    reach = draw.between(4, 20, b)
    for layer, share in enumerate(LAYERS):
        n = round(share * strength * b)
        if not n:
            continue
        rows = draw.rows(b, n)
        most = 1.5 if layer == 0 else 0.5  # part of it is outside of the frame
        cover = torch.where(draw.chance(0.4, n), draw.log_between(0.015, most, n), draw.between(0.05, most, n))
        half = 32 * (cover / 0.45).sqrt()
        stretch = draw.between(-0.7, 0.7, n).exp()
        course = courses(draw, paths.motion[rows], paths.fixed[rows], half, strength)
        if layer:  # often a part of what the first one is a part of: limbs, things that are held
            part = draw.chance(0.5, n, 1)
            ox, oy = (draw.between(-1.2, 1.2, n, 1) * reach[rows, None] for _ in range(2))
            ox, oy = (o + 0.35 * (c - c.mean(1, keepdim=True)) for o, c in ((ox, course.x), (oy, course.y)))
            course.x = torch.where(part, anchor_x[rows] + ox, course.x)
            course.y = torch.where(part, anchor_y[rows] + oy, course.y)
        else:
            anchor_x[rows], anchor_y[rows], reach[rows] = course.x, course.y, half
        leap = paths.leap[rows]  # a shot from elsewhere shows them elsewhere
        course.x, course.y = (
            (course.x - leap[..., 0]) / leap[..., 2].exp(),
            (course.y - leap[..., 1]) / leap[..., 2].exp(),
        )
        course.zoom = course.zoom - leap[..., 2]
        angle = course.angle + draw.between(-0.4, 0.4, n, 1) * draw.chance(0.5, n, 1)
        gx, gy = x - course.x[..., None, None], y - course.y[..., None, None]  # (n, T, S, S)
        c, s = ((-course.zoom).exp() * f for f in (angle.cos(), angle.sin()))
        c, s = c[..., None, None], s[..., None, None]
        width, height = (half * stretch).view(n, 1, 1, 1), (half / stretch).view(n, 1, 1, 1)
        px, py = draw.between(-0.5, 0.5, n, 1, 1, 1), draw.between(-0.5, 0.5, n, 1, 1, 1)  # the pivot
        places = torch.stack(((c * gx + s * gy) / width + px, (c * gy - s * gx) / height + py), -1)
        places = places + bending(draw, n, size)
        flat = places.view(n, FRAMES * size, size, 2)
        inside = F.grid_sample(shapes(draw, n), flat, padding_mode="border", align_corners=True)
        edge = half * torch.where(draw.chance(0.8, n), 1.0, draw.between(0.1, 0.5, n))
        alpha = (inside * edge.view(n, 1, 1, 1)).clamp(0, 1).view(n, 1, FRAMES, size, size)
        paint = crops(draw, bank, places, half)
        if layer == 0 and n >= 4:  # of some, what is within them is a film of its own
            films = n // 4
            other = first[draw.rows(b, films)].transpose(1, 2).flatten(0, 1)
            shown = F.grid_sample(other, places[:films].flatten(0, 1), padding_mode="reflection", align_corners=True)
            paint[:films] = shown.view(films, FRAMES, 3, size, size).transpose(1, 2)
        clips[rows], hides = composed(draw, clips[rows], alpha, paint)
        hidden[rows] = torch.maximum(hidden[rows], hides)
    return clips, hidden


def add_lens(draw: Draw, bank: Bank, clips: Tensor, hidden: Tensor, strength: float = 1.0) -> tuple[Tensor, Tensor]:
    """Things that never leave their place: a vehicle's parts at one or two borders, windows; bars, black or blurred."""
    b, size = len(clips), clips.shape[-1]
    x, y = raster(size, clips.device)
    n = max(1, round(0.2 * strength * b))
    rows = draw.rows(b, n)
    side = draw.whole(4, n) * (math.pi / 2) + draw.normal(n) * 0.25
    depth = draw.between(4, 30, n)
    ripple = draw.rand(n, 3, 1, 1) * draw.between(0, 10, n, 1, 1, 1)

    def beyond(side: Tensor, depth: Tensor) -> Tensor:
        """(n, S, S) px within a region at a border that is `depth` px deep."""
        c, s = side.cos().view(n, 1, 1), side.sin().view(n, 1, 1)
        along, across = c * y - s * x, c * x + s * y
        k = torch.arange(1, 4, device=clips.device).view(1, 3, 1, 1)
        bumps = ripple / k * torch.sin(k * along[:, None] / 14 + 6.2832 * draw.rand(n, 3, 1, 1))
        return across + bumps.sum(1) - (32 - depth).view(n, 1, 1)

    region = beyond(side, depth)
    second = beyond(side + math.pi / 2 * draw.sign(n), draw.between(4, 16, n))
    region = torch.where(draw.chance(0.3, n, 1, 1), torch.maximum(region, second), region)
    window = ((x / draw.between(26, 44, n, 1, 1)).square() + (y / draw.between(26, 44, n, 1, 1)).square()).sqrt() - 1
    region = torch.where(draw.chance(0.1, n, 1, 1), 30 * window, region)
    shiver = wander(draw, n, 2) * 0.6 * draw.rand(n, 1, 1)  # it is not quite at rest
    places = torch.stack(torch.broadcast_tensors(x / 32, y / 32), -1) + shiver[:, :, None, None] / 32
    paint = crops(draw, bank, places, torch.full((n,), 32.0, device=clips.device))
    alpha = (region + 0.5).clamp(0, 1)[:, None, None].expand(n, 1, FRAMES, size, size)
    clips[rows] = clips[rows] + alpha * (paint.clamp(0, 1) - clips[rows])
    hidden[rows] = torch.maximum(hidden[rows], alpha[:, 0])

    n = max(1, round(0.1 * b))
    rows = draw.rows(b, n)
    inner = draw.between(14, 31, n, 1, 1)
    across = torch.where(draw.chance(0.5, n, 1, 1), x.expand(size, size), y.expand(size, size))
    bars = (across.abs() - inner).clamp(0, 1)[:, None, None]
    blurred = F.interpolate(F.avg_pool2d(clips[rows].flatten(0, 1), 8), size=(size, size), mode="bilinear").view_as(
        clips[rows]
    )
    filling = torch.where(
        draw.chance(0.3, n, 1, 1, 1, 1), blurred, draw.rand(n, 3, 1, 1, 1) * draw.chance(0.25, n, 1, 1, 1, 1)
    )
    clips[rows] = clips[rows] + bars * (filling - clips[rows])
    hidden[rows] = torch.maximum(hidden[rows], bars[:, 0].expand(n, FRAMES, size, size))
    return clips, hidden
