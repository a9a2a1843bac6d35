"""Batches of clips with soft targets: the camera-motion data that the checkpoint is trained on.

    batch = make_batch(bank, 512, seed)        # on the bank's device, no loop over clips

A clip is RGB, 8 frames, normalised, and its target says what the CAMERA does by what the BACKGROUND does. "pan right":
what is seen moves left; "tilt up": down; "zoom in": it grows; "roll clockwise": it turns counterclockwise; "cut": the
shot changes. Position, scale and tilt of a frame have one distribution for all classes, and all that is not the
camera's (movers, light, noise, ...) is drawn without regard to the class, so that no single frame tells it.

Where so little of the background is to be seen that nobody could tell, a clip has weight 0.

Legend: B clips, T frames, S pixels of a frame's side, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from bank import Bank
from camera_paths import CUT, STATIC, draw_paths
from draw import Draw
from movers import add_lens, add_movers
from photometry import blurred, encoded, lit, recoloured, worn
from scene import backgrounds
from synthetic_protocol import MEAN, STD
from torch import Tensor

# Least response of the background that is seen: see synthetic_protocol.MIN_RESPONSE. A camera at rest before a wall
# that shows next to nothing is still at rest.
LEAST_RESPONSE, LEAST_AT_REST = 0.008, 0.0015
LEAST_VISIBLE = 0.2  # share of the background that is to be seen in every frame
LEAST_CHANGE = 0.05  # mean difference of grey levels over a cut
PLAIN = 0.25  # share of clips with nothing before the background


@dataclass
class Batch:
    clips: Tensor  # (B, 3, T, S, S) normalised
    targets: Tensor  # (B, K) soft, each row sums to 1
    weights: Tensor  # (B,) 0 or 1
    hard: Tensor  # (B,) class, or -1 between the classes


def responses(clips: Tensor, visible: Tensor) -> Tensor:
    """(B,) the least change for 1 pixel of motion, over mixtures of motions and frames, of what is visible.

    Args:
        clips: (B, 3, T, S, S) in [0, 1].
        visible: (B, T, S, S), 1 where the background is to be seen.
    """
    grey = clips.mean(1)
    gx = (grey[..., 1:-1, 2:] - grey[..., 1:-1, :-2]) / 2
    gy = (grey[..., 2:, 1:-1] - grey[..., :-2, 1:-1]) / 2
    axis = torch.arange(gx.shape[-1], device=clips.device) - (gx.shape[-1] - 1) / 2
    axis = axis / (2 * axis.square().mean()).sqrt()
    x, y = axis[None], axis[:, None]
    change = torch.stack((gx, gy, x * gx + y * gy, x * gy - y * gx), 2) * visible[:, :, None, 1:-1, 1:-1]
    change = change.flatten(3)
    gram = change @ change.mT / change.shape[-1]
    return torch.linalg.eigvalsh(gram.nan_to_num())[..., 0].amin(1).clamp(min=0).sqrt()


@torch.no_grad()
def make_batch(bank: Bank, b: int, seed: int, size: int = 64, strength: float = 1.0) -> Batch:
    """Batch number `seed`: the same for the same seed. `strength` (0 to 1) is how far difficulties have their range."""
    draw = Draw(seed, bank.device)
    paths = draw_paths(draw, b, strength)
    scenes = backgrounds(draw, bank, paths, size, strength)
    clips, hidden = add_movers(draw, bank, scenes, paths, strength)
    plain = draw.chance(PLAIN, b)
    clips = torch.where(plain.view(b, 1, 1, 1, 1), scenes, clips)
    hidden = hidden * ~plain.view(b, 1, 1, 1)
    blend = paths.blend[:, None, :, None, None]
    clips = clips + blend * (clips.roll(1, 0) - clips)
    framed, covered = add_lens(draw, bank, clips.clone(), hidden.clone(), strength)
    clips = torch.where(plain.view(b, 1, 1, 1, 1), clips, framed)
    hidden = torch.where(plain.view(b, 1, 1, 1), hidden, covered)
    clips = blurred(draw, recoloured(draw, clips, strength), strength)

    seen = responses(clips, 1 - hidden)
    share = (1 - hidden).mean((2, 3)).amin(1)
    change = (clips[:, :, 1:].mean(1) - clips[:, :, :-1].mean(1)).abs().mean((2, 3)).amax(1)
    at_rest, cut = paths.hard == STATIC, paths.hard == CUT
    enough = (seen >= torch.where(at_rest, LEAST_AT_REST, LEAST_RESPONSE)) & (share >= LEAST_VISIBLE)
    weights = torch.where(cut, change >= LEAST_CHANGE, enough).float()

    clips = encoded(draw, worn(draw, lit(draw, clips, strength), strength), strength)
    return Batch((clips - MEAN) / STD, paths.targets, weights, paths.hard)
