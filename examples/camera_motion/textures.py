"""Pictures without end: procedural textures for the camera-motion data.

Every maker takes a generator and a side length S and returns a (3, S, S) float tensor in [0, 1]. Each has detail at
several scales and no exact repetition: panned by half a period, a repeating pattern seems to move the other way.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

Texture = Callable[[torch.Generator, int], Tensor]


def uniform(generator: torch.Generator, low: float, high: float) -> float:
    return low + (high - low) * float(torch.rand((), generator=generator))


def palette(generator: torch.Generator, n: int) -> Tensor:
    """(n, 3) colours: a random base and spread, so that some pictures are drab and some are gaudy."""
    spread = uniform(generator, 0.15, 1.0)
    grey = torch.rand(n, 1, generator=generator)
    colour = torch.rand(n, 3, generator=generator)
    return ((1 - spread) * grey + spread * colour).clamp(0, 1)


def fractal(generator: torch.Generator, size: int, power: float | None = None) -> Tensor:
    """Noise with a 1/f^a amplitude spectrum, as natural pictures have; channels partly correlated."""
    power = uniform(generator, 0.7, 1.5) if power is None else power
    f = torch.fft.fftfreq(size)[:, None].square() + torch.fft.rfftfreq(size)[None].square()
    amplitude = f.clamp(min=(2 / size) ** 2).pow(-power / 2)
    noise = torch.fft.rfft2(torch.randn(3, size, size, generator=generator))
    mix = torch.eye(3) * uniform(generator, 0, 1) + torch.rand(3, 3, generator=generator) * 0.8
    image = torch.einsum("ij,jhw->ihw", mix, torch.fft.irfft2(noise * amplitude, s=(size, size)))
    image = image - image.mean((1, 2), keepdim=True)
    return (0.5 + image * (uniform(generator, 0.12, 0.3) / image.std())).clamp(0, 1)


def dead_leaves(generator: torch.Generator, size: int) -> Tensor:
    """Overlapping discs and boxes whose sizes follow a power law: edges and occlusion at all scales."""
    image = fractal(generator, size)
    axis = torch.arange(size, dtype=torch.float32)
    n = int(uniform(generator, 60, 250))
    colours = palette(generator, n)
    u = torch.rand(n, 6, generator=generator)
    smallest, largest = uniform(generator, 2, 6), uniform(generator, 20, 70)
    radii = (smallest**-2 + u[:, 0] * (largest**-2 - smallest**-2)).pow(-0.5)
    shade = uniform(generator, 0, 0.6)
    for i, (radius, (_, cx, cy, kind, aspect, angle)) in enumerate(zip(radii.tolist(), u.tolist(), strict=True)):
        cx, cy = cx * size, cy * size
        x0, x1 = (max(int(cx - 1.5 * radius), 0), min(int(cx + 1.5 * radius) + 2, size))
        y0, y1 = (max(int(cy - 1.5 * radius), 0), min(int(cy + 1.5 * radius) + 2, size))
        dx, dy = axis[None, x0:x1] - cx, axis[y0:y1, None] - cy
        c, s = math.cos(math.pi * angle), math.sin(math.pi * angle)
        a, b = c * dx + s * dy, (c * dy - s * dx) * (1 + aspect)
        distance = (a.square() + b.square()).sqrt() if kind < 0.5 else torch.maximum(a.abs(), b.abs())
        mask = (radius - distance).clamp(0, 1)  # one pixel of soft edge
        patch = image[:, y0:y1, x0:x1]
        leaf = colours[i][:, None, None] * (1 - shade / 2 + shade * (a / radius).clamp(-1, 1) / 2)
        image[:, y0:y1, x0:x1] = patch + mask * (leaf - patch)
    return image.clamp(0, 1)


def voronoi(generator: torch.Generator, size: int) -> Tensor:
    """Flat cells with ragged borders, like stone walls and fields."""
    n = int(uniform(generator, 30, 200))
    points = torch.rand(n, 2, generator=generator) * size
    warp = (fractal(generator, size)[:2] - 0.5) * uniform(generator, 0, 40)
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    where = torch.stack((x + warp[0], y + warp[1]), -1).view(-1, 2)
    cells = palette(generator, n)[torch.cdist(where, points).argmin(1)].view(size, size, 3).permute(2, 0, 1)
    grain = fractal(generator, size, 1.0) - 0.5
    return (cells + uniform(generator, 0, 0.5) * grain).clamp(0, 1)


def pattern(generator: torch.Generator, size: int) -> Tensor:
    """Stripes or checks, bent and unevenly wide, with dirt on them."""
    y, x = torch.meshgrid(torch.arange(size).float(), torch.arange(size).float(), indexing="ij")
    warp = (fractal(generator, size, 1.6) - 0.5) * uniform(generator, 20, 90)
    angle = uniform(generator, 0, math.pi)
    u = math.cos(angle) * x + math.sin(angle) * y + warp[0]
    v = math.cos(angle) * y - math.sin(angle) * x + warp[1]
    sharp = uniform(generator, 1, 6)
    wave = torch.sin(2 * math.pi * u / uniform(generator, 14, 50))
    if uniform(generator, 0, 1) < 0.6:
        wave = wave * torch.sin(2 * math.pi * v / uniform(generator, 14, 50))
    level = torch.sigmoid(sharp * wave * 2)
    first, second = palette(generator, 2)[:, :, None, None]
    grain = fractal(generator, size, 1.0) - 0.5
    return (first + (second - first) * level + uniform(generator, 0.2, 0.8) * grain).clamp(0, 1)


def text(generator: torch.Generator, size: int) -> Tensor:
    """Lines of blocks like words, on paper that is not quite even."""
    paper, ink = palette(generator, 2).unbind()
    image = paper[:, None, None] + 0.2 * (fractal(generator, size, 1.4) - 0.5)
    height, gap = uniform(generator, 4, 14), uniform(generator, 1.4, 2.2)
    y = uniform(generator, 0, height)
    while y < size:
        x = uniform(generator, -20, 20)
        while x < size:
            width = height * uniform(generator, 0.25, 0.7)
            if uniform(generator, 0, 1) < 0.8:
                top = int(y + height * uniform(generator, 0, 0.4))
                bottom = int(y + height * uniform(generator, 0.5, 1.2)) + 1
                image[:, top:bottom, max(int(x), 0) : max(int(x + width), 0)] = ink[:, None, None]
            x += width * uniform(generator, 1.1, 1.8)
        y += height * gap * uniform(generator, 0.9, 1.1)
    return F.avg_pool2d(image[None], 3, 1, 1, count_include_pad=False)[0].clamp(0, 1)


TEXTURES: tuple[Texture, ...] = (fractal, dead_leaves, dead_leaves, voronoi, pattern, text)


def blend(first: Tensor, second: Tensor, generator: torch.Generator) -> Tensor:
    """Two pictures of one shape through a soft mask, or the one shining through the other."""
    if uniform(generator, 0, 1) < 0.5:
        mask = torch.sigmoid(30 * (fractal(generator, first.shape[-1], 1.6)[:1] - 0.5))
    else:
        mask = torch.tensor(uniform(generator, 0.3, 0.7))
    return first + mask * (second - first)


def texture(generator: torch.Generator, size: int) -> Tensor:
    """One picture (3, S, S) of a random kind; three in ten blend two kinds."""
    kinds = torch.randint(len(TEXTURES), (2,), generator=generator).tolist()
    image = TEXTURES[kinds[0]](generator, size)
    return blend(image, TEXTURES[kinds[1]](generator, size), generator) if uniform(generator, 0, 1) < 0.3 else image
