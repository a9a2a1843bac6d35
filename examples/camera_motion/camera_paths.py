"""What the camera does, and what a clip may be called for it: paths and soft targets, a batch at a time.

Definitions (sizes are of a frame of 64 x 64, over a clip; shares of zoom and roll are compared as root mean square
displacement over the frame, 26.1 px to a unit of log scale or to a radian):

    static      the path stays within 1.05 px, 1.5 % of scale, 1 degree
    pan, tilt   4 to 44 px, every other motion at most 0.4 of it, path at most 1.25 of the net move
    zoom        by 12 % or more, the fixed point within 16 px of the centre; roll: by 8 degrees or more, likewise
    cut         the shot changes

Between the definitions (too small, two kinds at once, shaken, too fast) the target is spread over the classes that a
viewer could name, so that a probability means something.

Legend: B clips, T frames, K classes. A motion is four columns: x, y, zoom, roll, each in px of root mean square.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from draw import Draw
from synthetic_protocol import FRAMES, MOTIONS
from torch import Tensor
from torch.nn import functional as F

CLASSES = (*MOTIONS, "cut")  # the order of a model's outputs
STATIC, CUT = 0, len(CLASSES) - 1
RADIUS = 64 / math.sqrt(
    6
)  # px: root mean square distance from the centre, hence displacement by a unit of zoom or roll
# Of each column: the most that is static, the least that is a motion, the most that is drawn for a class.
STILL = (1.05, 1.05, RADIUS * math.log(1.015), RADIUS * math.radians(1))
LEAST = (4.0, 4.0, RADIUS * math.log(1.12), RADIUS * math.radians(8))
MOST = (44.0, 44.0, RADIUS * math.log(2.0), RADIUS * math.radians(60))
OTHERS = 0.4
SMOOTHING = 0.02
# Shares of what clips show; the eight motions have what is left, in equal parts.
P_STATIC, P_CUT, P_BETWEEN = 0.27, 0.08, 0.15


@dataclass
class Paths:
    """Camera paths of a batch. The view is moved by `motion` about `fixed`, then scaled and turned for good."""

    motion: Tensor  # (B, T, 4): x and y in px, log scale, radians
    fixed: Tensor  # (B, 2): the point that zoom and roll leave in place, px from the centre
    base: Tensor  # (B, 2): log scale and radians that a clip has throughout, so that no frame tells the class
    blend: Tensor  # (B, T) in [0, 1]: how much of a frame is another shot; 0 but for cuts to another place
    leap: Tensor  # (B, T, 3): x, y and log scale that the view leaps by; 0 but for cuts to another framing
    targets: Tensor  # (B, K), each row sums to 1
    hard: Tensor  # (B,) class, or -1 between the classes


def progress(draw: Draw, b: int, columns: int) -> Tensor:
    """(B, T, columns) from 0 to 1: steady, eased, sooner or later, begun late or over early; as often as reversed."""
    time = torch.linspace(0, 1, FRAMES, device=draw.device)[None, :, None]
    begin = draw.between(0, 0.4, b, 1, columns) * draw.chance(0.3, b, 1, columns)
    over = 1 - draw.between(0, 0.4, b, 1, columns) * draw.chance(0.3, b, 1, columns)
    ease, late = draw.rand(b, 1, columns), draw.between(-0.35, 0.35, b, 1, columns).exp()
    t = ((time - begin) / (over - begin)).clamp(0, 1).pow(late)
    path = (1 - ease) * t + ease * t * t * (3 - 2 * t)
    return torch.where(draw.chance(0.5, b, 1, columns), path, (1 - path).flip(1))


def wander(draw: Draw, b: int, columns: int) -> Tensor:
    """(B, T, columns): a smooth to nervous path that leads nowhere, within -1 and 1."""
    time = torch.linspace(0, 1, FRAMES, device=draw.device)[None, :, None]
    slow, fast = (
        torch.sin(2 * math.pi * (draw.between(low, high, b, 1, columns) * time + draw.rand(b, 1, columns)))
        for low, high in ((0.3, 1.2), (1.0, 3.5))
    )
    jitter = 2 * draw.rand(b, FRAMES, columns) - 1
    shares = draw.rand(b, 3, 1, 1).pow(2) + 0.02
    shares = shares / shares.sum(1, keepdim=True)
    path = shares[:, 0] * slow + shares[:, 1] * fast + shares[:, 2] * jitter
    middle = (path.amax(1, keepdim=True) + path.amin(1, keepdim=True)) / 2
    return path - middle


def plausible(net: Tensor) -> Tensor:
    """(B, 4) net motions -> (B, K): how a viewer's votes would fall; even halfway from static to the least motion."""
    still, least = net.new_tensor(STILL), net.new_tensor(LEAST)
    half = (still * least).sqrt()
    power = 2.6 / (least / half).log()  # 93 % at either end
    score = power * (net.abs().clamp(min=1e-3) / half).log()
    scores = net.new_full((len(net), len(CLASSES)), -20.0)
    scores[:, STATIC] = 0
    for index, motion in enumerate(MOTIONS.values()):
        if motion is not None:
            column, sign = motion
            scores[:, index] = torch.where(net[:, column] * sign > 0, score[:, column], -20.0)
    return scores.softmax(1)


def draw_paths(draw: Draw, b: int, strength: float = 1.0) -> Paths:
    """Paths of b clips. `strength` (0 to 1) is how far speeds and disturbances have their full range."""
    shares = [P_STATIC, *[(1 - P_STATIC - P_CUT - P_BETWEEN) / 8] * 8, P_CUT, P_BETWEEN]
    kind = draw.choice(shares, b)
    cut, between = kind == CUT, kind == CUT + 1
    shown = torch.where(kind > 8, draw.whole(9, b), kind)  # what a shot does on either side of a cut
    still = (shown == STATIC) & ~between
    column = torch.where(shown == STATIC, draw.whole(4, b), (shown - 1).clamp(min=0) // 2)
    signs = torch.tensor([1, *(m[1] for m in MOTIONS.values() if m)], device=draw.device)
    sign = torch.where(shown == STATIC, draw.sign(b), signs[shown].float())

    def of(values: tuple[float, ...]) -> Tensor:
        return torch.tensor(values, device=draw.device)

    # Size of the main motion: of a class; or too small, mixed, shaken, too fast.
    case = torch.where(between, 1 + draw.choice((0.35, 0.35, 0.2, 0.1), b), 0)
    least, most, rest = of(LEAST)[column], of(MOST)[column], of(STILL)[column]
    low = torch.where(case == 1, rest, torch.where(case == 4, most, least * (most / least).pow(0.5 * (1 - strength))))
    high = torch.where(case == 1, least, torch.where(case == 4, 2 * most, most))
    size = low * (high / low).pow(draw.rand(b))
    main = F.one_hot(column, 4).float()
    # Every other motion, as a share of the main one: at most 0.4 together, but where two kinds are mixed one has more.
    direction = draw.normal(b, 4) * (1 - main)
    direction = direction / direction.norm(dim=1, keepdim=True).clamp(min=1e-6)
    share = OTHERS * draw.rand(b, 1).pow(1.5) * draw.chance(0.8, b, 1) * strength
    second = F.one_hot((column + 1 + draw.whole(3, b)) % 4, 4) * draw.sign(b, 1) * draw.log_between(OTHERS, 1, b, 1)
    others = torch.where((case == 2)[:, None], second, share * direction)
    # Zoom and roll leave a point in place that is not the centre; so no more of the frame's motion is a pan.
    turns = column >= 2
    others[:, :2] = torch.where((turns & (case == 0))[:, None], torch.zeros(()).to(others), others[:, :2])
    amount = size[:, None] * (main * sign[:, None] + others)  # (B, 4) net motion
    course = torch.where(
        draw.chance(0.5, b, 1, 1), progress(draw, b, 1), progress(draw, b, 4)
    )  # together or each alone
    moment = draw.rand(b, 1, 4)
    motion = amount[:, None] * (course - torch.cat((torch.full_like(moment[..., :2], 0.5), moment[..., 2:]), 2))
    # Shake: the path of a pan may be 1.25 times its net move; that of a still camera has its own limit.
    shake = size / (FRAMES - 1) * 0.6 * draw.rand(b).square() * draw.chance(0.5, b) * strength
    jitter = (2 * draw.rand(b, FRAMES, 4) - 1) * (shake + 0.3 * draw.rand(b))[:, None, None]
    motion = motion + jitter * of((1.0, 1.0, 0.3, 0.3))
    resting = wander(draw, b, 4) * of(STILL) / 2 * draw.rand(b, 1, 4)
    motion = torch.where(still[:, None, None], resting, motion)
    shaken = (case == 3)[:, None, None]
    tremor = wander(draw, b, 4) * draw.log_between(0.7, 5, b, 1, 1) * of((1.0, 1.0, 0.3, 0.4))
    motion = torch.where(shaken, tremor + motion * draw.rand(b, 1, 1).square() * 0.5, motion)

    targets = F.one_hot(torch.where(between, STATIC, shown), len(CLASSES)).float()
    net = motion[:, -1] - motion[:, 0]
    path = (motion[:, 1:] - motion[:, :-1])[..., :2].norm(dim=2).sum(1)
    straight = (net[:, :2].norm(dim=1) / path.clamp(min=1e-3))[:, None]
    votes = torch.where((case == 3)[:, None], plausible(net * straight), plausible(amount))
    pans = F.pad(torch.full((5,), 0.2), (0, len(CLASSES) - 5)).to(votes)  # static and the four ways of shaking
    votes = torch.where((case == 3)[:, None], 0.75 * votes + 0.25 * pans, votes)
    votes = torch.where((case == 4)[:, None], 0.75 * votes + 0.25 / len(CLASSES), votes)
    targets = torch.where(between[:, None], votes, targets)
    targets = torch.where(cut[:, None], F.one_hot(torch.full_like(kind, CUT), len(CLASSES)).float(), targets)
    targets = (1 - SMOOTHING) * targets + SMOOTHING / len(CLASSES)

    # Motions that a clip does not show are frozen at a random moment of theirs.
    other_size = of(LEAST)[2:] * (of(MOST) / of(LEAST))[2:].pow(draw.rand(b, 2)) * draw.sign(b, 2)
    frozen = other_size * (progress(draw, b, 2).gather(1, draw.whole(FRAMES, b, 1, 2))[:, 0] - draw.rand(b, 2))
    base = torch.where((main[:, 2:] > 0) & ~still[:, None], torch.zeros(()).to(frozen), frozen) / RADIUS
    motion = motion / of((1.0, 1.0, RADIUS, RADIUS))
    angle, far = 2 * math.pi * draw.rand(b), 15 * draw.rand(b).sqrt() * strength
    fixed = torch.stack((far * angle.cos(), far * angle.sin()), 1)
    # A cut or a dissolve of up to two frames, after the first and before the last frame; half of the cuts stay in
    # their place, and change what the frame shows of it.
    when = draw.between(0.5, FRAMES - 1.5, b, 1)
    length = draw.between(0, 2, b, 1) * draw.chance(0.25, b, 1) + 0.01
    frame = torch.arange(FRAMES, device=draw.device)[None]
    blend = ((frame - when) / length + 0.5).clamp(0, 1) * cut[:, None]
    blend[:, 0], blend[:, -1] = 0, cut.float()  # at least one frame of either shot is all its own
    within = draw.chance(0.5, b, 1)
    far, near = draw.between(20, 60, b, 2) * draw.sign(b, 2), draw.between(-12, 12, b, 2)
    closer = draw.between(0.35, 0.9, b, 1) * draw.sign(b, 1)
    leap = torch.where(draw.chance(0.5, b, 1), torch.cat((far, 0.5 * closer), 1), torch.cat((near, closer), 1))
    leap = (blend > 0.5)[..., None] * within[..., None] * leap[:, None]
    hard = torch.where(between, -1, torch.where(cut, CUT, shown))
    return Paths(motion, fixed, base, blend * ~within, leap, targets, hard)
