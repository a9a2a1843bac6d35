"""Between formats of weights: any known one in, ours or transformers' out."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import timm
import torch

from timesformer_zoo.errors import CheckpointError
from timesformer_zoo.factories import architecture_of, bind_checkpoint
from timesformer_zoo.hub.load import check_name, load_model
from timesformer_zoo.hub.save import save_pretrained, write_weights
from timesformer_zoo.model.attention import AttentionMode
from timesformer_zoo.model.timesformer import TimeSformer
from timesformer_zoo.weights.files import read_checkpoint
from timesformer_zoo.weights.fit import check_mode
from timesformer_zoo.weights.formats import Format, detect
from timesformer_zoo.weights.transformers import to_transformers
from timesformer_zoo.writing import whole_file

__all__ = ["convert", "model_of_file"]

Path_ = str | os.PathLike[str]


def convert(
    source: Path_,
    out: Path_,
    to: Literal["native", "transformers"],
    *,
    model: str | None = None,
    force: bool = False,
) -> Path:
    """Convert a checkpoint.

        convert("TimeSformer_divST_8x32_224_K400.pyth", "k400", "transformers", model="timesformer_base_divided.k400")

    Args:
        source: a file of weights in any known format, or a folder with them.
        out: a folder, which gets config.json, model.safetensors and a model card, and loads by `local-dir:` (and with
            `to="transformers"` in transformers as well); or a file that ends in .safetensors, for the weights alone.
        to: "native" or "transformers".
        model: a registered name, whose number of heads, sampling and, with a tag, labels, licence and order of
            colours (the authors' SSv2 weights take BGR) are the file's. Sizes are the file's own. None: as a folder's
            config.json says; of a bare file of width 768, as for base.
        force: replace what is at `out`.

    Returns:
        Where it was written.

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
    if model is None and source.is_dir() and (source / "config.json").is_file():
        network = load_model(source)
    else:
        network = model_of_file(source, model)
    if out.suffix != ".safetensors":
        return save_pretrained(network, out, also_transformers=to == "transformers")
    weights = network.state_dict() if to == "native" else to_transformers(network)[1]
    with whole_file(out, needed=sum(tensor.nbytes for tensor in weights.values())) as partial:
        write_weights(weights, partial)
    return out


def model_of_file(source: Path, name: str | None = None) -> TimeSformer:
    """The model that a file of weights is for, of the file's own sizes, with the weights loaded.

    Args:
        source: see `convert`.
        name: the `model` of `convert`.

    Raises:
        CheckpointError: as `convert`.
    """
    weights = read_checkpoint(source)
    form = detect(weights)
    if form.inflates:
        raise CheckpointError(
            f"{source}: an image ViT, with which a video model can start but which is none: "
            "timm.create_model(NAME), then init_from_vit(model, …)"
        )
    registered = name or architecture_of(_only_mode(source, weights, form))
    check_name(registered)
    with torch.device("meta"):
        plain: Any = timm.create_model(registered)
    mode = plain.attention if name else _only_mode(source, weights, form)
    check_mode(weights, form, mode)
    sizes = _sizes(form.to_native(weights, mode))
    if sizes["embed_dim"] != plain.embed_dim:
        raise CheckpointError(
            f"{source}: of width {sizes['embed_dim']}, {registered} is {plain.embed_dim} wide; weights do not tell the "
            "number of heads: name a model of this width (--model)"
        )
    model = timm.create_model(registered, weight_init="skip", attention=mode, **sizes)
    assert isinstance(model, TimeSformer)  # for the type checker
    model.load_state_dict(weights)
    if "." in registered:
        bind_checkpoint(model)
    return model.eval()


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
    )
    if "time_embed" in native:
        sizes["num_frames"] = native["time_embed"].shape[1]
    side = math.isqrt(native["pos_embed"].shape[1] - 1)
    if side**2 == native["pos_embed"].shape[1] - 1:
        sizes["img_size"] = (side * rows, side * columns)
    return sizes
