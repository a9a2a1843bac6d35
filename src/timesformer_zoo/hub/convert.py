"""Between formats of weights: any known one in, ours or transformers' out."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import timm
import torch

from timesformer_zoo.errors import CheckpointError
from timesformer_zoo.factories import architecture_of, bind_checkpoint
from timesformer_zoo.hub.load import check_name, load_model
from timesformer_zoo.hub.save import save_pretrained, write_weights
from timesformer_zoo.model.attention import AttentionMode
from timesformer_zoo.model.timesformer import TimeSformer
from timesformer_zoo.weights.files import read_checkpoint
from timesformer_zoo.weights.fit import check_mode, checkpoint_filter_fn
from timesformer_zoo.weights.formats import Format, detect
from timesformer_zoo.weights.transformers import to_transformers
from timesformer_zoo.writing import whole_file

__all__ = ["Converted", "convert", "model_of_file"]

Path_ = str | os.PathLike[str]

if TYPE_CHECKING:
    _Path = Path
else:
    _Path = type(Path())  # before Python 3.12 no other can be subclassed


class Converted(_Path):
    """Where a conversion was written."""

    left_out: tuple[str, ...] = ()
    """Names of what the source has beside the video model: a text tower's keys, another head's, "student" …"""


def convert(
    source: Path_,
    out: Path_,
    to: Literal["native", "transformers"],
    *,
    model: str | None = None,
    num_heads: int | None = None,
    force: bool = False,
) -> Converted:
    """Convert a checkpoint: whole, or the video encoder of one that has other networks beside it (LaViLa, EgoVLP …).

        convert("TimeSformer_divST_8x32_224_K400.pyth", "k400", "transformers", model="timesformer_base_divided.k400")

    Args:
        source: a file of weights in any known format, or a folder with them.
        out: a folder, which gets config.json, model.safetensors and a model card, and loads by `local-dir:` (and with
            `to="transformers"` in transformers as well); or a file that ends in .safetensors, for the weights alone.
        to: "native" or "transformers".
        model: a registered name, whose number of heads, sampling and, with a tag, labels, licence and order of
            colours (the authors' SSv2 weights take BGR) are the file's. Sizes are the file's own. None: as a folder's
            config.json says; of a bare file of a registered model's width, as for that.
        num_heads: attention heads, which weights do not tell; None: as the name says, or the width. What is written to
            a bare native file does not depend on it.
        force: replace what is at `out`.

    Returns:
        Where it was written, a Path; its `left_out` names what was left out.

    Raises:
        FileExistsError: there is something at `out`, and force is off.
        CheckpointError: the file can't be read, or its format is unknown, or the name does not fit it.
        ValueError: transformers has no such model.
        WriteError: the disk is full, or the folder read-only. What is at `out` stays as it is until the end.
    """
    source, out = Path(source), Path(out)
    if to not in ("native", "transformers"):
        raise ValueError(f"to is {to!r}, expected 'native' or 'transformers'")
    written = [out] if out.suffix == ".safetensors" else [out / "config.json", out / "model.safetensors"]
    if not force and (taken := [path for path in written if path.exists()]):
        raise FileExistsError(f"{taken[0]} exists: choose another place, or replace it with --force (force=True)")
    left_out: tuple[str, ...] = ()
    if model is None and source.is_dir() and (source / "config.json").is_file():
        network = load_model(source)
    else:
        alone = out.suffix == ".safetensors" and to == "native"
        network, left_out = _read(source, model, num_heads or (1 if alone else None))
    if out.suffix != ".safetensors":
        written_to = Converted(save_pretrained(network, out, also_transformers=to == "transformers"))
    else:
        weights = network.state_dict() if to == "native" else to_transformers(network)[1]
        with whole_file(out, needed=sum(tensor.nbytes for tensor in weights.values())) as partial:
            write_weights(weights, partial)
        written_to = Converted(out)
    written_to.left_out = left_out
    return written_to


def model_of_file(source: Path, name: str | None = None, num_heads: int | None = None) -> TimeSformer:
    """The model that a file of weights is for, of the file's own sizes, with the weights loaded.

    Args:
        source: see `convert`.
        name: the `model` of `convert`.
        num_heads: see `convert`.

    Raises:
        CheckpointError: as `convert`.
    """
    return _read(source, name, num_heads)[0]


def _read(source: Path, name: str | None, num_heads: int | None) -> tuple[TimeSformer, tuple[str, ...]]:
    """The model of a file, and the names of what it has beside that."""
    weights = read_checkpoint(source)
    form = detect(weights)
    if form.inflates:
        raise CheckpointError(
            f"{source}: an image ViT, with which a video model can start but which is none: "
            "timm.create_model(NAME), then init_from_vit(model, …)"
        )
    mode = None if name else _only_mode(source, weights, form)
    native = form.to_native(weights, mode) if mode else None
    registered = name or architecture_of(str(mode), native["norm.weight"].shape[0] if native else None)
    check_name(registered)
    with torch.device("meta"):
        plain: Any = timm.create_model(registered)
    mode = mode or plain.attention
    check_mode(weights, form, mode)
    sizes = _sizes(native or form.to_native(weights, mode))
    if num_heads is None and sizes["embed_dim"] != plain.embed_dim:
        raise CheckpointError(
            f"{source}: of width {sizes['embed_dim']}, {registered} is {plain.embed_dim} wide; weights do not tell the "
            "number of heads: name a model of this width (--model), or say how many (--num-heads)"
        )
    if form.time_interpolation:
        sizes["time_interpolation"] = form.time_interpolation
    if "." in registered and plain.time_interpolation.startswith(
        "first"
    ):  # later rows of such files were never trained
        sizes["num_frames"] = min(plain.num_frames, sizes["num_frames"])
    heads = {} if num_heads is None else {"num_heads": num_heads}
    arguments = dict(form.function, attention=mode, weight_init="skip") | sizes | heads
    model = timm.create_model(registered, **arguments)
    assert isinstance(model, TimeSformer)  # for the type checker
    fitted = checkpoint_filter_fn(weights, model, new_head=False)
    model.load_state_dict(fitted)
    if "." in registered:
        bind_checkpoint(model)
    return model.eval(), fitted.left_out


def _only_mode(source: Path, weights: Mapping[str, torch.Tensor], form: Format) -> AttentionMode:
    """The attention mode that keys tell; modes of the same steps in another order may have the same keys."""
    modes = form.modes(weights)
    if len(modes) != 1:
        raise CheckpointError(
            f"{source}: its keys ({form.name} format) fit {' and '.join(modes) or 'no'} attention: name a model of the "
            "mode that it has (--model)"
        )
    return modes[0]


def _sizes(native: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """The constructor's arguments that shapes tell."""
    width, channels, rows, columns = native["patch_embed.proj.weight"].shape
    sizes: dict[str, Any] = dict(
        embed_dim=width,
        in_chans=channels,
        patch_size=(rows, columns),
        depth=1 + max(int(found[1]) for key in native if (found := re.match(r"blocks\.(\d+)\.", key))),
        mlp_ratio=native["blocks.0.mlp.fc1.weight"].shape[0] / width,
        num_classes=native["head.weight"].shape[0] if "head.weight" in native else 0,
        qkv_bias=any(key.endswith(".qkv.bias") for key in native),
        pre_norm="norm_pre.weight" in native,
        patch_bias="patch_embed.proj.bias" in native,
    )
    if "time_embed" in native:
        sizes["num_frames"] = native["time_embed"].shape[1]
    side = math.isqrt(native["pos_embed"].shape[1] - 1)
    if side**2 == native["pos_embed"].shape[1] - 1:
        sizes["img_size"] = (side * rows, side * columns)
    return sizes
