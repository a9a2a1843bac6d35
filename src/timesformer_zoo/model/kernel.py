"""A GPU kernel for attention along one axis, over few tokens: queries, keys and values are read where they lie.

Nothing but speed and memory depends on this file: where `applies` says no, a step attends as `block.py` has it, to the
same result up to rounding. torch's fused kernels work on 64 keys and more at a time, and ask for each group's tokens
side by side; of eight frames, most of their work and all of that copying is in vain. Here a program takes some groups
of one head, multiplies all of their tokens with each other, and masks what is not of one group.

Legend: O outer, S attended, I inner axis: (O, S, I, …), so that a group's tokens are I apart. 3 D: queries, keys and
values, each H heads of d.
"""

from __future__ import annotations

from typing import Any

import torch

try:
    import triton
    import triton.language as tl
    from triton.runtime.errors import OutOfResources
except ImportError:  # torch brings it along where it has a GPU that it can be used on
    triton = None

__all__ = ["applies", "attention"]

TILES = {torch.float16: (64, 64, 128), torch.bfloat16: (64, 64, 128), torch.float32: (32, 32, 32)}
"""Tokens that a program takes, at least: as many groups as go into it. And up to how many tokens of a group the kernel
is the fastest, without and with a gradient (measured: benchmarks/RESULTS.md)."""

MAX_HEAD = 64
"""Numbers of a head, likewise."""

ROWS_PER_WARP = 16
"""Of a program's tokens."""


def applies(step: Any, patches: torch.Tensor) -> bool:
    """Whether an attention step may attend to patches (B, T, h, w, D) by `attention` below: on a GPU, over few tokens.

    No class token among them, no dropout of attention weights, no attention maps asked for (`fused_attn` off). What is
    exported or traced is torch's own operators, so that it can go where this package is not.
    """
    autocast = patches.is_cuda and torch.is_autocast_enabled("cuda")
    dtype = torch.get_autocast_dtype("cuda") if autocast else patches.dtype
    return (
        patches.is_cuda
        and triton is not None
        and torch.version.cuda is not None
        and step.fused_attn
        and step.step.axis is not None
        and not (step.training and step.attn_drop.p)
        and patches.shape[step.step.axis] <= TILES.get(dtype, (0, 0, 0))[1 + torch.is_grad_enabled()]
        and patches.shape[-1] <= MAX_HEAD * step.num_heads
        and not _is_exporting()
        and not torch.jit.is_tracing()  # type: ignore[attr-defined,no-untyped-call]
    )


def _is_exporting() -> bool:
    # torch.compiler.is_exporting() also holds when torch 2.7 or 2.11 compiles.
    return bool(getattr(torch.compiler, "_is_exporting_flag", False))


def attention(step: Any, qkv: torch.Tensor) -> torch.Tensor:
    """An attention step's attention, before its projection: (B, T, h, w, 3 D), contiguous -> (B, T, h, w, D)."""
    axis = step.step.axis
    rows = qkv.unsqueeze(axis + 1).flatten(axis + 1, -2).flatten(0, axis - 1)  # O S I 3D
    return _attention(rows, step.num_heads).view(*qkv.shape[:-1], -1)


# ---- by torch's own operators; and as operators of its own, which torch's compiler takes as they are ----


def _plain(qkv: torch.Tensor, heads: int) -> torch.Tensor:
    """(O, S, I, 3 D) -> (O, S, I, D)."""
    _, _, v, weights = _weights(qkv, heads)
    return (weights @ v).permute(0, 3, 1, 2, 4).flatten(3).contiguous()


def _plain_backward(grad: torch.Tensor, qkv: torch.Tensor, heads: int) -> torch.Tensor:
    """The gradient by the output (O, S, I, D), and qkv (O, S, I, 3 D) -> the gradient by qkv."""
    q, k, v, weights = _weights(qkv, heads)
    out = grad.unflatten(-1, (heads, -1)).permute(0, 2, 3, 1, 4)  # O I H S d
    by_weights = out @ v.mT
    by_scores = weights * (by_weights - (weights * by_weights).sum(-1, keepdim=True)) * q.shape[-1] ** -0.5
    gradients = torch.stack([by_scores @ k, by_scores.mT @ q, weights.mT @ out])  # 3 O I H S d
    return gradients.permute(1, 4, 2, 0, 3, 5).flatten(3).contiguous()


def _weights(qkv: torch.Tensor, heads: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    q, k, v = qkv.unflatten(-1, (3, heads, -1)).permute(3, 0, 2, 4, 1, 5).unbind(0)  # O I H S d
    return q, k, v, (q * q.shape[-1] ** -0.5 @ k.mT).softmax(-1)


_attention = torch.library.custom_op(
    "timesformer_zoo::attention", _plain, mutates_args=(), schema="(Tensor qkv, int heads) -> Tensor"
)
_attention_backward = torch.library.custom_op(
    "timesformer_zoo::attention_backward",
    _plain_backward,
    mutates_args=(),
    schema="(Tensor grad, Tensor qkv, int heads) -> Tensor",
)


@_attention.register_fake
def _(qkv: torch.Tensor, heads: int) -> torch.Tensor:
    return qkv.new_empty(*qkv.shape[:3], qkv.shape[3] // 3)


@_attention_backward.register_fake
def _(grad: torch.Tensor, qkv: torch.Tensor, heads: int) -> torch.Tensor:
    return qkv.new_empty(qkv.shape)


def _keep(ctx: Any, inputs: tuple[torch.Tensor, int], output: torch.Tensor) -> None:
    ctx.save_for_backward(inputs[0])
    ctx.heads = inputs[1]


def _gradient(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None]:
    return _attention_backward(grad, *ctx.saved_tensors, ctx.heads), None


_attention.register_autograd(_gradient, setup_context=_keep)


# ---- the same, by Triton ----

if triton is not None:

    @triton.jit
    def _rows(tile, inner, places, S: tl.constexpr, ROWS: tl.constexpr):
        """Of each row of a tile: its group, the number of its token, and whether it is there."""
        row = tl.arange(0, ROWS)
        place = tile.to(tl.int64) * (ROWS // S) + row // S
        token = (place // inner * S + row % S) * inner + place % inner
        return place, token, (row // S < ROWS // S) & (place < places)

    @triton.jit
    def _softmax(q, k, place, scale, PRECISION: tl.constexpr):
        scores = tl.dot(q, tl.trans(k), input_precision=PRECISION) * scale
        scores = tl.where(place[:, None] == place[None, :], scores, float("-inf"))
        weights = tl.exp(scores - tl.max(scores, 1)[:, None])
        return weights / tl.sum(weights, 1)[:, None]

    @triton.jit
    def _forward_kernel(
        qkv, out, inner, places, heads, scale,
        S: tl.constexpr, d: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, PRECISION: tl.constexpr,
    ):  # fmt: skip
        head = tl.program_id(0) % heads
        place, token, there = _rows(tl.program_id(0) // heads, inner, places, S, ROWS)
        column = tl.arange(0, COLUMNS)
        mask = there[:, None] & (column < d)[None, :]
        at = qkv + token[:, None] * (3 * heads * d) + head * d + column[None, :]
        q = tl.load(at, mask, other=0.0)
        k = tl.load(at + heads * d, mask, other=0.0)
        v = tl.load(at + 2 * heads * d, mask, other=0.0)
        weights = _softmax(q, k, place, scale, PRECISION)
        result = tl.dot(weights.to(v.dtype), v, input_precision=PRECISION)
        at = out + token[:, None] * (heads * d) + head * d + column[None, :]
        tl.store(at, result.to(v.dtype), mask)

    @triton.jit
    def _backward_kernel(
        grad, qkv, out, inner, places, heads, scale,
        S: tl.constexpr, d: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, PRECISION: tl.constexpr,
    ):  # fmt: skip
        head = tl.program_id(0) % heads
        place, token, there = _rows(tl.program_id(0) // heads, inner, places, S, ROWS)
        column = tl.arange(0, COLUMNS)
        mask = there[:, None] & (column < d)[None, :]
        at = token[:, None] * (3 * heads * d) + head * d + column[None, :]
        q = tl.load(qkv + at, mask, other=0.0)
        k = tl.load(qkv + at + heads * d, mask, other=0.0)
        v = tl.load(qkv + at + 2 * heads * d, mask, other=0.0)
        g = tl.load(grad + token[:, None] * (heads * d) + head * d + column[None, :], mask, other=0.0)
        weights = _softmax(q, k, place, scale, PRECISION)
        by_weights = tl.dot(g, tl.trans(v), input_precision=PRECISION)
        by_scores = weights * (by_weights - tl.sum(weights * by_weights, 1)[:, None]) * scale
        by_scores, weights = by_scores.to(q.dtype), weights.to(q.dtype)
        by_v = tl.dot(tl.trans(weights), g, input_precision=PRECISION)
        tl.store(out + at + 2 * heads * d, by_v.to(q.dtype), mask)
        by_k = tl.dot(tl.trans(by_scores), q, input_precision=PRECISION)
        tl.store(out + at + heads * d, by_k.to(q.dtype), mask)
        by_q = tl.dot(by_scores, k, input_precision=PRECISION)
        tl.store(out + at, by_q.to(q.dtype), mask)

    def _launch(kernel: Any, qkv: torch.Tensor, heads: int, *tensors: torch.Tensor) -> bool:
        """Whether this GPU can run it; an older or smaller one can not."""
        outer, length, inner, width = qkv.shape
        d = width // 3 // heads
        rows = max(TILES[qkv.dtype][0], triton.next_power_of_2(length))
        places = outer * inner
        tiles = triton.cdiv(places, rows // length)
        sizes = dict(S=length, d=d, ROWS=rows, COLUMNS=max(16, triton.next_power_of_2(d)))
        precision = "tf32" if torch.backends.cuda.matmul.allow_tf32 else "ieee"  # of float32, as torch's products
        if qkv.is_cuda and torch.cuda.get_device_capability(qkv.device) < (8, 0):
            return False
        try:
            with torch.cuda.device_of(qkv):
                kernel[tiles * heads,](
                    *tensors,
                    inner,
                    places,
                    heads,
                    d**-0.5,
                    **sizes,
                    PRECISION=precision,
                    num_warps=rows // ROWS_PER_WARP,
                )
        except OutOfResources:
            return False
        return True

    @_attention.register_kernel("cuda")
    def _triton_attention(qkv: torch.Tensor, heads: int) -> torch.Tensor:
        qkv = qkv.contiguous()
        out = qkv.new_empty(*qkv.shape[:3], qkv.shape[3] // 3)
        return out if _launch(_forward_kernel, qkv, heads, qkv, out) else _plain(qkv, heads)

    @_attention_backward.register_kernel("cuda")
    def _triton_attention_backward(grad: torch.Tensor, qkv: torch.Tensor, heads: int) -> torch.Tensor:
        qkv, grad = qkv.contiguous(), grad.contiguous()
        out = torch.empty_like(qkv)
        return out if _launch(_backward_kernel, qkv, heads, grad, qkv, out) else _plain_backward(grad, qkv, heads)
