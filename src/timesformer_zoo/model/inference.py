"""The block for inference on a CPU: in place, a chunk of groups at a time, with the product that is fastest there.

Nothing but speed and memory depends on this file: where `applies` says no, the block runs as `block.py` has it, to the
same result up to rounding.

Legend: B batch, T frames, h w patch rows and columns, D width, G groups of S tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeGuard

import torch
from timm.layers import Mlp
from torch import nn
from torch.nn.modules import module
from torch.utils import _python_dispatch

__all__ = ["Linears", "applies", "block", "chunks", "hooked", "packed_is_faster"]

CHUNK_TOKENS = 2048
"""Tokens worked on at once: their activations stay in the CPU's cache and in reused memory."""

GLOBAL_HOOKS = tuple(f"_global_{kind}_hooks" for kind in ("forward", "forward_pre", "backward", "backward_pre"))
"""Where torch keeps what was hooked on to all modules."""

PACK_TOKENS, PACK_WEIGHTS = 512, 2**18
"""Fewer tokens, or a smaller weight, gain less than packing costs."""


def hooked(layer: nn.Module) -> bool:
    """Whether anybody has hooked on to a layer or its parts."""
    return any(
        part._forward_hooks or part._forward_pre_hooks or part._backward_hooks or part._backward_pre_hooks
        for part in layer.modules()
    )


def applies(block: Any, x: torch.Tensor) -> bool:
    """Whether a block may run by `block` below: on a CPU, and nobody records or looks at what is inside.

    No gradient, compiler or tracer; no hook that waits for a whole output, be it a module's or a global one as
    profilers set; no attention maps asked for (`fused_attn` off). No step where the class token sees all tokens: its
    outputs can't be added in place, a chunk of groups at a time, to what others still look at.
    """
    return (
        x.device.type == "cpu"
        and not block.training
        and not torch.is_grad_enabled()
        and not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()  # type: ignore[attr-defined,no-untyped-call]
        and all(step.fused_attn and not step.step.class_sees_all for step in block.steps.values())
        and not any(getattr(module, hooks) for hooks in GLOBAL_HOOKS)
        and not hooked(block)
    )


def block(
    block: Any, cls: torch.Tensor, patches: torch.Tensor, class_only: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """`Block.forward`. What is given stays as it is: whoever holds it may keep it."""
    x = torch.cat([cls, patches.flatten(1, 3)], 1)
    cls, patches = x[:, :1], x[:, 1:].unflatten(1, patches.shape[1:4])
    *steps, last = block.steps.values()
    for step in steps:
        _add_step(step, cls, patches)
    _add_step(last, cls, patches, class_only)
    x = cls.clone() if class_only else x
    linears = Linears(x)
    for tokens in x.flatten(0, 1).split(CHUNK_TOKENS):
        tokens.add_(_mlp(block.mlp, block.norm(tokens), linears))
    return x[:, :1], patches


def _add_step(step: Any, cls: torch.Tensor, patches: torch.Tensor, class_only: bool = False) -> None:
    """Both become `AttentionStep.forward` of them, in place."""
    joins = int(step.step.class_token)
    if class_only and not joins:
        return
    linears = Linears(patches)
    clips = max(1, CHUNK_TOKENS // max(1, patches[:1].numel() // patches.shape[-1]))
    for first, rest in zip(cls.split(clips), patches.split(clips), strict=True):
        firsts = []
        for cell in step.step.cells(patches.shape[1:4]):
            view = step.step.view(rest, cell)
            for part in chunks(view, view.ndim - 2 - len(step.step.axes)):
                residual = linears(step.proj, step.attend(part, first, linears, class_only))  # B G S D
                residual = residual if step.fc is None else linears(step.fc, residual)
                if not class_only:
                    part.add_(residual[:, :, joins:].reshape(part.shape))
                if joins:
                    firsts.append(residual[:, :, :1].clone())  # a view would keep all of it in memory
        if joins:
            first.add_(torch.cat(firsts, 1).mean(1))


def chunks(groups: torch.Tensor, numbering: int, axis: int = 1) -> Iterator[torch.Tensor]:
    """Views of all groups, some at a time: about `CHUNK_TOKENS` tokens, and never less than a group.

    Args:
        groups: (B, *axes that number groups, *axes attended, D).
        numbering: how many axes number groups.
        axis: the first one that may be cut.
    """
    if not numbering:
        yield groups
        return
    tokens = max(1, groups.narrow(axis, 0, 1).numel() // groups.shape[-1])  # an empty batch has none
    if tokens > CHUNK_TOKENS and axis < numbering:
        for part in groups.split(1, axis):
            yield from chunks(part, numbering, axis + 1)
    else:
        yield from groups.split(max(1, CHUNK_TOKENS // tokens), axis)


def _mlp(mlp: Any, x: torch.Tensor, linears: Linears) -> torch.Tensor:
    """mlp(x); what somebody put in its place runs as it is."""
    if type(mlp) is Mlp and "forward" not in vars(mlp) and type(mlp.act) is nn.GELU and mlp.act.approximate == "none":
        return linears(mlp.fc2, mlp.norm(linears(mlp.fc1, x, gelu=True)))
    return mlp(x)


class Linears:
    """Applies linear layers to the chunks of one pass: `linears(layer, x)` is `layer(x)`, faster where that can be.

    Laying a weight out in the order in which oneDNN's kernel reads it costs as much as 200 tokens or so. It is done
    anew in every pass: nothing is kept that could grow stale when a weight changes.

    Args:
        x: all tokens that will pass through the layers, (..., D), to tell whether packing pays.
    """

    def __init__(self, x: torch.Tensor) -> None:
        self._pays = x.numel() // x.shape[-1] >= PACK_TOKENS and packed_is_faster(x.dtype) and _has_packed()
        self._packed: dict[nn.Linear, torch.Tensor] = {}

    def __call__(self, layer: nn.Module, x: torch.Tensor, gelu: bool = False) -> torch.Tensor:
        """`layer(x)`, and if asked the exact GELU of it, with no second tensor for that."""
        if not (self._pays and _is_plain(layer, x.dtype)):
            y: torch.Tensor = layer(x)
            return nn.functional.gelu(y) if gelu else y
        if layer not in self._packed:
            self._packed[layer] = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach(), CHUNK_TOKENS)
        after, kind = ("gelu", "none") if gelu else ("none", "")
        return torch.ops.mkldnn._linear_pointwise(x, self._packed[layer], layer.bias, after, [], kind)


def packed_is_faster(dtype: torch.dtype) -> bool:
    """The choice of the product: oneDNN's with a packed weight, or torch's own.

    Measured (benchmarks/RESULTS.md): with AVX-512 the packed one takes 8 to 15 % less time in float32, and more in
    bfloat16; with AVX2 alone 10 % more.
    """
    if not torch.backends.cpu.get_cpu_capability().startswith("AVX512"):
        return False
    multiplies_bfloat16 = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
    return dtype == torch.float32 or (dtype == torch.bfloat16 and bool(multiplies_bfloat16()))


def _has_packed() -> bool:
    """Whether this torch has oneDNN's product, and nothing is on that must see torch's own instead.

    Its operators are those that torch's compiler generates calls of. They are not documented, and a torch without them
    multiplies as ever.
    """
    dispatch_mode = getattr(_python_dispatch, "_get_current_dispatch_mode", lambda: True)
    return (
        bool(torch.backends.mkldnn.is_available() and torch.backends.mkldnn.enabled)
        and all(hasattr(torch.ops.mkldnn, name) for name in ("_linear_pointwise", "_reorder_linear_weight"))
        and not torch.is_autocast_enabled("cpu")
        # Counters of operations, dispatch modes and profilers, know torch's own product only.
        and dispatch_mode() is None
        and not torch.autograd._profiler_enabled()  # type: ignore[attr-defined]
    )


def _is_plain(layer: nn.Module, dtype: torch.dtype) -> TypeGuard[nn.Linear]:
    """Whether a layer is nn.Linear and no more: no adapter, no quantised, offloaded or other weight than its own."""
    return (
        type(layer) is nn.Linear
        and "forward" not in vars(layer)  # accelerate's hooks stand there
        and type(layer.weight) is nn.Parameter
        and layer.weight.device.type == "cpu"
        and layer.weight.dtype == dtype
        and layer.weight.numel() >= PACK_WEIGHTS
    )
