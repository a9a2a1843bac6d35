"""What a camera, a lamp, a film and an encoder do to a clip, a batch at a time; all without regard to the class.

Clips are (B, 3, T, S, S) in [0, 1].
"""

from __future__ import annotations

import math

import torch
from draw import Draw
from torch import Tensor
from torch.nn import functional as F


def each(x: Tensor) -> Tensor:
    """(B,) -> (B, 1, 1, 1, 1)."""
    return x.view(-1, 1, 1, 1, 1)


def recoloured(draw: Draw, clips: Tensor, strength: float) -> Tensor:
    """Gamma, saturation, contrast, tint and flat colours, the same in all frames."""
    b = len(clips)
    grey = draw.chance(0.15 * strength, b)
    much = strength * draw.rand(b, 1, 1, 1, 1)  # most clips look about as they were
    saturation = torch.where(each(grey), 0.0, 1 + 0.7 * much * draw.between(-1, 1, b, 1, 1, 1, 1))
    contrast = 1 + 0.25 * strength * draw.rand(b, 1, 1, 1, 1)
    contrast = contrast + much * (0.15 * draw.between(-1, 1, b, 3, 1, 1, 1) + 0.45 * draw.between(-1, 1, b, 1, 1, 1, 1))
    offset = 0.5 - 0.5 * contrast + 0.15 * much * draw.between(-1, 1, b, 1, 1, 1, 1)
    offset = offset + 0.08 * each(grey.float()) * draw.between(-1, 1, b, 3, 1, 1, 1)  # sepia and the like
    clips = clips.clamp(1e-4, 1).pow((0.7 * much * draw.between(-1, 1, b, 1, 1, 1, 1)).exp())
    mean = clips.mean(1, keepdim=True)
    clips = contrast * (mean + saturation * (clips - mean)) + offset
    steps = each(draw.between(3, 9, b))
    flat = each(draw.chance(0.03 * strength, b))
    return torch.where(flat, (clips * steps).round() / steps, clips).clamp(0, 1)


def blurred(draw: Draw, clips: Tensor, strength: float) -> Tensor:
    """Out of focus, or coarse pixels; at times the frame before shines through."""
    b, size = len(clips), clips.shape[-1]
    x = F.pad(clips, (1, 1, 1, 1, 0, 0), mode="replicate")
    x = x[..., :-2, :] + 2 * x[..., 1:-1, :] + x[..., 2:, :]
    soft = (x[..., :-2] + 2 * x[..., 1:-1] + x[..., 2:]) / 16
    amount = draw.rand(b) * draw.chance(0.2 * strength, b)
    sharper = -1.2 * draw.rand(b) * draw.chance(0.35 * strength, b)
    clips = clips + each(amount + sharper) * (soft - clips)
    coarse = F.avg_pool2d(clips.flatten(0, 2)[:, None], 2)
    coarse = F.interpolate(coarse, size=(size, size), mode="bilinear", align_corners=False).view_as(clips)
    clips = clips + each(draw.chance(0.08 * strength, b).float()) * (coarse - clips)
    ghost = 0.45 * draw.rand(b) * draw.chance(0.06 * strength, b)
    before = torch.cat((clips[:, :, :1], clips[:, :, :-1]), 2)
    return (clips + each(ghost) * (before - clips)).clamp(0, 1)


def lit(draw: Draw, clips: Tensor, strength: float) -> Tensor:
    """Flicker, exposure that adapts, lamps that flash or go on, light from one side that comes and goes."""
    b, _, t, size, _ = clips.shape
    flicker = draw.normal(b, t) * (0.01 + 0.1 * draw.rand(b, 1).square() * draw.chance(0.3 * strength, b, 1))
    time = torch.linspace(-0.5, 0.5, t, device=clips.device)
    late = ((time - draw.between(-0.5, 0.5, b, 1)) * draw.log_between(1, 12, b, 1)).clamp(-0.5, 0.5)
    ramp = late * draw.between(-0.6, 0.6, b, 1) * draw.chance(0.2 * strength, b, 1)
    flash = F.one_hot(draw.whole(t, b), t) * draw.between(-0.5, 0.9, b, 1) * draw.chance(0.06 * strength, b, 1)
    gain = (flicker + ramp + flash).exp()[:, None, :, None, None]
    axis = torch.linspace(-1, 1, size, device=clips.device)
    angle = draw.between(0, 2 * math.pi, b, 1, 1)
    slope = angle.cos() * axis[None, None] + angle.sin() * axis[None, :, None]
    side = slope[:, None] * (late * draw.between(-0.4, 0.4, b, 1) * draw.chance(0.12 * strength, b, 1))[..., None, None]
    white = (flash.clamp(min=0) * 0.5 * draw.rand(b, 1))[:, None, :, None, None]
    return (clips * gain * side.exp()[:, None] + white).clamp(0, 1)


def worn(draw: Draw, clips: Tensor, strength: float) -> Tensor:
    """Noise, coarse or fine; dust and scratches of old films; frames shown twice."""
    b, _, t, size, _ = clips.shape
    fine = draw.normal(b, 1, t, size, size)
    noise = fine + 0.5 * draw.normal(b, 3, 1, 1, 1) * fine.roll(1, 0)
    level = 0.01 * draw.rand(b) + 0.05 * draw.rand(b).square() * draw.chance(0.4 * strength, b)
    clips = clips + each(level) * noise
    n = max(1, round(0.04 * strength * b))
    rows = draw.rows(b, n)
    dust = F.interpolate(draw.rand(n, t, size // 2, size // 2), size=(size, size), mode="bilinear", align_corners=False)
    scratch = (draw.rand(n, t, 1, size) > 0.995).float().expand(n, t, size, size)
    clips[rows] = clips[rows] + ((dust > 0.985).float() + 0.5 * scratch)[:, None] * draw.between(
        -0.7, 0.7, n, 1, t, 1, 1
    )
    again = torch.arange(t, device=clips.device) - (draw.chance(0.25, b, t) & draw.chance(0.06 * strength, b, 1)).long()
    again = again.clamp(min=0)[:, None, :, None, None].expand(-1, 3, -1, size, size)
    return clips.gather(2, again).clamp(0, 1)


def cosine_basis(n: int, device: torch.device) -> Tensor:
    """(n, n) orthonormal DCT-II, a frequency a row."""
    k = torch.arange(n, device=device)
    basis = torch.cos(math.pi * k[:, None] * (2 * k[None] + 1) / (2 * n)) * math.sqrt(2 / n)
    basis[0] /= math.sqrt(2)
    return basis


def encoded(draw: Draw, clips: Tensor, strength: float, share: float = 0.35) -> Tensor:
    """An encoder's traces: blocks of 4 x 4 px whose frequencies are rounded, and that stay as they are if they differ
    little from the frame before."""
    b, _, t, size, _ = clips.shape
    n = round(share * strength * b)
    if not n:
        return clips
    rows = draw.rows(b, n)
    block = 4
    basis = cosine_basis(block, clips.device)
    x = clips[rows].unflatten(-1, (-1, block)).unflatten(-3, (-1, block))  # n 3 T R b C b
    x = torch.einsum("nktrpcq,ip,jq->nktrcij", x, basis, basis)
    k = torch.arange(block, device=clips.device, dtype=clips.dtype)
    step = (0.02 + 0.25 * draw.rand(n, 1, 1, 1, 1, 1, 1).square()) * (0.4 + 0.4 * (k[:, None] + k[None]))
    x = (x / step).round() * step
    keep = 0.12 * draw.rand(n, 1, 1, 1, 1, 1).square() * draw.chance(0.6, n, 1, 1, 1, 1, 1)
    frames = [x[:, :, 0]]
    for i in range(1, t):
        change = (x[:, :, i] - frames[-1]).abs().amax((1, 4, 5), keepdim=True)
        frames.append(torch.where(change > keep, x[:, :, i], frames[-1]))
    x = torch.einsum("nktrcij,ip,jq->nktrpcq", torch.stack(frames, 2), basis, basis)
    clips = clips.clone()
    clips[rows] = x.flatten(-4, -3).flatten(-2).view(n, 3, t, size, size)
    return clips.clamp(0, 1)
