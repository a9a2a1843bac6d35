"""How much each patch of the input moves a class's logit: gradients, and integrated gradients.

Legend: B batch, C channels, T frames, H W pixels, h w patch rows and columns, K classes.

Papers: Simonyan, Vedaldi, Zisserman, "Deep Inside Convolutional Networks", ICLR workshop 2014, arXiv 1312.6034
(gradients); Sundararajan, Taly, Yan, "Axiomatic Attribution for Deep Networks", ICML 2017, arXiv 1703.01365
(integrated gradients).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import nn

from timesformer_zoo.explanation.maps import expect_evaluation, grid_of
from timesformer_zoo.model.timesformer import TimeSformer, expect_timesformer

__all__ = ["Classes", "gradients", "integrated_gradients", "pick"]

_MAX_TOKENS = 2**12  # of the places of the way that run at once: about as much memory as one clip of 32 frames

Classes = int | Sequence[int] | torch.Tensor
"""The index of a class, one for all clips or one each."""


def gradients(model: nn.Module, clip: torch.Tensor, class_index: Classes) -> torch.Tensor:
    """The size of a class's gradient in each patch: the sum of |∂ logit / ∂ input| over its channels and pixels.

    Args:
        model: a TimeSformer in evaluation mode, its head giving one row of logits a clip. Its gradients are left alone.
        clip: (B, C, T, H, W), as for the model.
        class_index: of the class, one for all clips or one each.

    Returns:
        (B, T, h, w), at least 0.

    Raises:
        TypeError: it is no TimeSformer.
        ValueError: in training mode; or no such class.
    """
    model = expect_timesformer(model)
    return _by_patch(model, _gradient(model, clip, class_index).abs())


def integrated_gradients(
    model: nn.Module,
    clip: torch.Tensor,
    class_index: Classes,
    *,
    baseline: torch.Tensor | None = None,
    steps: int = 32,
) -> torch.Tensor:
    """The share of each patch in a class's logit: gradients times input, along the way from a clip that shows nothing.

    The integral over the straight way is Captum's, by the rule of Gauss and Legendre, which needs the fewest gradients.

    Args:
        model, clip, class_index: as `gradients` has them.
        baseline: where the way begins, broadcast to the clip; None: zeros, of which every pixel is the mean colour.
        steps: gradients on the way.

    Returns:
        (B, T, h, w), of either sign. Up to the rule's error it sums to logit(clip) - logit(baseline): completeness.

    Raises:
        TypeError, ValueError: as `gradients`; or steps is below 1.
        ModuleNotFoundError: Captum is not installed: pip install 'timesformer-zoo[captum]'.
    """
    if steps < 1:
        raise ValueError(f"steps is {steps}, expected a whole number from 1 up")
    model = expect_timesformer(model)
    expect_evaluation(model)
    tokens = len(clip) * math.prod(grid_of(model, clip))
    try:
        from captum.attr import IntegratedGradients
    except ModuleNotFoundError as error:
        problem = "integrated gradients need captum: pip install 'timesformer-zoo[captum]'"
        raise ModuleNotFoundError(problem, name=error.name) from None
    start = torch.zeros_like(clip) if baseline is None else baseline.to(clip).expand_as(clip)
    with torch.inference_mode(False), torch.enable_grad(), _checkpointing(model):
        chosen = _chosen(model(clip.detach()[:1]), class_index, len(clip))
        shares = IntegratedGradients(model).attribute(
            clip.detach().clone(),
            start.clone(),
            target=chosen,
            n_steps=steps,
            method="gausslegendre",
            internal_batch_size=len(clip) * max(1, _MAX_TOKENS // max(tokens, 1)),
        )
    return _by_patch(model, shares.detach())


def pick(logits: torch.Tensor, class_index: Classes) -> torch.Tensor:
    """The sum over clips of the logit of a class: one number, whose gradient has each clip's apart.

    Raises:
        ValueError: there is not one row of logits (K,) a clip, or no such class, or not one class a clip.
    """
    return logits.gather(1, _chosen(logits, class_index, len(logits))[:, None]).sum()


def _chosen(logits: torch.Tensor, class_index: Classes, clips: int) -> torch.Tensor:
    """One class a clip, (clips,). Raises ValueError as `pick`."""
    if logits.ndim != 2:
        raise ValueError(
            f"got outputs {tuple(logits.shape)}, expected one row of logits a clip: global_pool token or avg"
        )
    chosen = torch.as_tensor(class_index, device=logits.device).reshape(-1)
    if len(chosen) not in (1, clips):
        raise ValueError(f"got {len(chosen)} classes for {clips} clips, expected one, or one each")
    if not ((chosen >= 0) & (chosen < logits.shape[1])).all():
        raise ValueError(f"class_index is {chosen.tolist()}, expected 0 to {logits.shape[1] - 1}")
    return chosen.long().expand(clips)


def _gradient(model: TimeSformer, clip: torch.Tensor, class_index: Classes) -> torch.Tensor:
    """Of the class's logit, in the shape of the clip."""
    expect_evaluation(model)
    with torch.inference_mode(False), torch.enable_grad(), _checkpointing(model):
        x = clip.detach().clone().requires_grad_()
        return torch.autograd.grad(pick(model(x), class_index), x)[0]


@contextmanager
def _checkpointing(model: TimeSformer) -> Iterator[None]:
    """Blocks run again when their gradient's turn comes: 96 frames of a base model take 20 GB otherwise."""
    before = model.grad_checkpointing
    model.grad_checkpointing = True
    try:
        yield
    finally:
        model.grad_checkpointing = before


def _by_patch(model: TimeSformer, values: torch.Tensor) -> torch.Tensor:
    """Sums over the channels and pixels of each patch: (B, C, T, H, W) -> (B, T, h, w)."""
    _, h, w = grid_of(model, values)
    rows, columns = model.patch_size
    values = values.float().sum(1)
    values = F.pad(values, (0, w * columns - values.shape[-1], 0, h * rows - values.shape[-2]))  # as a model that pads
    return values.unflatten(-1, (w, columns)).unflatten(-3, (h, rows)).sum((-3, -1))
