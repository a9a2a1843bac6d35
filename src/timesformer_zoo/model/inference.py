"""Inference on a CPU: when its shortcuts apply, and linear layers whose weight is laid out once for many chunks.

torch multiplies float32 matrices with MKL. oneDNN, which torch carries as well, was 8 to 15 % faster on the machine of
benchmarks/RESULTS.md once the weight lay in the order in which its kernel reads it. Laying it out costs as much as 200
tokens or so, so it is done anew in every pass: nothing is kept that could grow stale when a weight changes.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator
from typing import TypeGuard

import torch
from torch import nn
from torch.utils import _python_dispatch

__all__ = ["CHUNK_TOKENS", "Linears", "chunks", "eager_inference", "plain_attention_faster"]

CHUNK_TOKENS = 2048
"""Tokens worked on at once in inference on a CPU: their activations stay in its cache and in reused memory."""

PACK_TOKENS, PACK_WEIGHTS = 512, 2**18
"""Fewer tokens, or a smaller weight, gain less than packing costs."""

UNFUSED_TOKENS = {torch.bfloat16: 256}
"""Up to how many keys fused attention with its gradient is slower than two products, by number format."""


def eager_inference(x: torch.Tensor) -> bool:
    """Whether x is on a CPU and nobody records what is done to it, no gradient and no compiler."""
    return (
        x.device.type == "cpu"
        and not torch.is_grad_enabled()
        and not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()  # type: ignore[attr-defined,no-untyped-call]
    )


def plain_attention_faster(keys: torch.Tensor) -> bool:
    """Whether a training step is faster if attention over keys (N, H, S, d) is two products, not torch's fused one."""
    return keys.device.type == "cpu" and keys.shape[-2] <= UNFUSED_TOKENS.get(keys.dtype, 0)


def chunks(groups: torch.Tensor, numbering: int, axis: int = 1) -> Iterator[torch.Tensor]:
    """Views of all groups, some at a time: about `CHUNK_TOKENS` tokens, and never less than a group.

    Args:
        groups: (B, *axes that number groups, *axes attended, D).
        numbering: how many axes number groups.
        axis: the first one that may be cut.
    """
    tokens = max(1, groups.narrow(axis, 0, 1).numel() // groups.shape[-1])  # an empty batch has none
    if tokens > CHUNK_TOKENS and axis < numbering:
        for part in groups.split(1, axis):
            yield from chunks(part, numbering, axis + 1)
    else:
        yield from groups.split(max(1, CHUNK_TOKENS // tokens), axis)


class Linears:
    """Applies linear layers to the chunks of one pass: `linears(layer, x)` is `layer(x)`, faster where that can be.

    Args:
        x: all tokens that will pass through the layers, (..., D), to tell whether packing pays.
    """

    def __init__(self, x: torch.Tensor) -> None:
        self._pays = x.numel() // x.shape[-1] >= PACK_TOKENS and _has_packed_product(x.dtype)
        self._packed: dict[nn.Linear, torch.Tensor] = {}

    def __call__(self, layer: nn.Module, x: torch.Tensor, gelu: bool = False) -> torch.Tensor:
        """`layer(x)`, and if asked the exact GELU of it, with no second tensor for that."""
        if not (self._pays and _is_plain(layer, x.dtype)):
            y: torch.Tensor = layer(x)
            return nn.functional.gelu(y) if gelu else y
        if layer not in self._packed:
            self._packed[layer] = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach(), CHUNK_TOKENS)
        after, kind = ("gelu", "none") if gelu else ("none", "")
        result: torch.Tensor = torch.ops.mkldnn._linear_pointwise(x, self._packed[layer], layer.bias, after, [], kind)
        return result


def _has_packed_product(dtype: torch.dtype) -> bool:
    """Whether this torch on this machine has oneDNN's product, and nothing is on that must see torch's own instead.

    Its operators are those that torch's compiler generates calls of. They are not documented, and a torch without them
    multiplies as ever.
    """
    dispatch_mode = getattr(_python_dispatch, "_get_current_dispatch_mode", None)
    return (
        platform.machine() in ("x86_64", "AMD64")
        and torch.backends.mkldnn.is_available()
        and bool(torch.backends.mkldnn.enabled)
        and all(hasattr(torch.ops.mkldnn, name) for name in ("_linear_pointwise", "_reorder_linear_weight"))
        and (dtype == torch.float32 or (dtype == torch.bfloat16 and _multiplies_bfloat16()))
        and not torch.is_autocast_enabled("cpu")
        and dispatch_mode is not None
        and dispatch_mode() is None  # counters of operations know torch's own product only
    )


def _multiplies_bfloat16() -> bool:
    supported = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
    return supported is not None and bool(supported())


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
