"""Any model by any of its names: a registered one, a repository or a folder, in timm's layout or in transformers'."""

from __future__ import annotations

import difflib
import hashlib
import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
import torch

from timesformer_zoo.errors import CheckpointError
from timesformer_zoo.factories import ARCHITECTURES, architecture_of
from timesformer_zoo.hub.facts import FACTS, CardFacts, parse_facts
from timesformer_zoo.model.attention import AttentionMode
from timesformer_zoo.model.embedding import to_pair
from timesformer_zoo.model.timesformer import TimeSformer
from timesformer_zoo.weights.download import hub_file, weights_file
from timesformer_zoo.weights.files import weight_file_in
from timesformer_zoo.weights.table import CHECKPOINTS
from timesformer_zoo.weights.transformers import from_transformers_config
from timesformer_zoo.writing import current

__all__ = [
    "card_facts",
    "check_name",
    "in_timms_layout",
    "load_from_transformers",
    "load_model",
    "local_folder",
    "model_digest",
    "usable_device",
]

_logger = logging.getLogger(__name__)

# Where transformers keeps mean and std: its releases differ in the file that they write.
_PREPROCESSORS = ("preprocessor_config.json", "video_preprocessor_config.json")


def load_model(name: str | os.PathLike[str], *, device: str | torch.device | None = None) -> TimeSformer:
    """A model with its weights, in evaluation mode.

    Args:
        name: a registered name, with or without tag ("timesformer_base_divided.k600"); "hf-hub:OWNER/REPOSITORY", if
            need be with @REVISION, or a folder or "local-dir:FOLDER". These may hold a model of this package, as
            `save_pretrained` and `push_to_hf_hub` write them, or one of transformers.
        device: where to put it; None: the CPU.

    Raises:
        ValueError: there is no such model; the message lists the nearest names.
        DownloadError, CheckpointError: its weights can't be had, or do not fit.
    """
    name = os.fspath(name)
    source, place = _source_and_place(name)
    if source:
        if source == "local-dir":
            if not Path(place).is_dir():
                raise ValueError(f"{place}: there is no such folder")
            place = str(current(place, "config.json").parent)
        if in_timms_layout(place):
            model = timm.create_model(f"{source}:{place}", pretrained=True)
        else:
            model = load_from_transformers(place)
    else:
        check_name(name)
        model = timm.create_model(name, pretrained=True)
    if not isinstance(model, TimeSformer):
        raise ValueError(f"{name} is a {type(model).__name__}, not a TimeSformer")
    return model.eval() if device is None else model.eval().to(device)


def usable_device(device: str | None) -> str:
    """A device, once it was seen to work; None: the fastest there is.

    Raises:
        ValueError: it can't be used.
    """
    device = device or str(torch.accelerator.current_accelerator(check_available=True) or "cpu")
    try:
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # torch built without it, or no driver
        reason = str(error).splitlines()[0]
        raise ValueError(f"device {device}: can't be used ({reason}); leave it out, or give another") from None
    return device


def card_facts(name: str | os.PathLike[str]) -> CardFacts:
    """What a saved or published model's card says that the model does not know; of a registered name, nothing.

    Args:
        name: as for `load_model`.

    Raises:
        DownloadError, CheckpointError: the facts can't be had, or are damaged.
    """
    source, place = _source_and_place(os.fspath(name))
    path = _find(place, FACTS) if source else None
    return CardFacts() if path is None else parse_facts(path.read_text(encoding="utf-8"), path)


def local_folder(name: str | os.PathLike[str]) -> Path | None:
    """The folder that `load_model(name)` reads; None if it is a registered name or a repository of the Hub."""
    source, place = _source_and_place(os.fspath(name))
    return Path(place) if source == "local-dir" else None


def model_digest(name: str | os.PathLike[str]) -> str | None:
    """What tells the model of a folder or repository from one that is there under the same name later, trained anew.

    Args:
        name: as for `load_model`.

    Returns:
        The sha256 of its config and weights; None of a registered name, which leads to the same weights for ever.

    Raises:
        ValueError, DownloadError, CheckpointError: as `load_model`.
    """
    name = os.fspath(name)
    source, place = _source_and_place(name)
    if not source:
        check_name(name)
        return None
    if source == "local-dir":
        if not Path(place).is_dir():
            raise ValueError(f"{place}: there is no such folder")
        weights = weight_file_in(current(place, "config.json").parent)
    else:
        weights = weights_file(place)
    config = _find(place, "config.json")
    digest = hashlib.sha256(config.read_bytes() if config else b"")
    with weights.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _source_and_place(name: str) -> tuple[str, str]:
    """("hf-hub", OWNER/NAME), ("local-dir", folder) or ("", registered name)."""
    source, _, place = name.partition(":")
    if source in ("hf-hub", "local-dir"):
        return source, place
    return ("local-dir", name) if Path(name).is_dir() else ("", name)


def load_from_transformers(source: str | os.PathLike[str], *, bgr: bool = False) -> TimeSformer:
    """A model of transformers' TimesformerForVideoClassification as ours, with its labels, mean and std.

        model = load_from_transformers("facebook/timesformer-base-finetuned-k400")

    A repository of the checkpoint table is loaded as that checkpoint, with its own sampling of clips. Of another,
    transformers' files do not say how clips are sampled: `model.clip` is then None, which is `ClipSpec`'s default.

    Args:
        source: a repository, if need be with @REVISION, or a folder, with config.json and weights.
        bgr: the weights were trained on BGR frames, as the authors' for SSv2 were: reverse them on load, so that the
            model takes RGB. For repositories of the table it is known, and this has no effect.

    Raises:
        DownloadError: the repository can't be had.
        CheckpointError: it is not a TimeSformer, or the weights do not fit.
    """
    source = os.fspath(source).removeprefix("hf-hub:")
    is_folder = Path(source).is_dir()
    config = _read_json(source, "config.json")
    arguments = from_transformers_config(config)
    labels = _labels(config, arguments["num_classes"])
    entries = {entry.source.get("hf_hub_id"): name for name, entry in CHECKPOINTS.items() if not entry.image}
    if not is_folder and (name := entries.get(source.partition("@")[0])):
        overlay = {"hf_hub_id": source, "label_names": labels}
        return _create(name, dict(arguments, pretrained_cfg_overlay=overlay))
    architecture = architecture_of(AttentionMode(arguments["attention"]))
    pretrained_cfg = dict(
        architecture=architecture,
        input_size=(arguments["in_chans"], *to_pair(arguments["img_size"])),
        fixed_input_size=True,
        num_classes=arguments["num_classes"],
        label_names=labels,
        first_conv="patch_embed.proj",
        classifier="head",
        license=_license(source),
        **_mean_std(source),
        **(dict(file=source, source="local-dir") if is_folder else dict(hf_hub_id=source, source="hf-hub")),
    )
    return _create(architecture, dict(arguments, pretrained_cfg=pretrained_cfg, bgr=bgr))


def _create(name: str, arguments: Mapping[str, Any]) -> TimeSformer:
    model = timm.create_model(name, pretrained=True, **arguments)
    assert isinstance(model, TimeSformer)  # for the type checker
    return model.eval()


def check_name(name: str) -> None:
    """Raise ValueError, with the nearest names, unless this package has a model of this name, with or without tag."""
    if name.partition(":")[1] or "/" in name:
        raise ValueError(f"{name} is no folder, and no name of a model; a repository of the Hub is hf-hub:OWNER/NAME")
    known = ARCHITECTURES | set(CHECKPOINTS)
    if name not in known:
        nearest = difflib.get_close_matches(name, known, n=5, cutoff=0.5)
        raise ValueError(
            f"There is no model {name!r}. {'Did you mean ' + ', '.join(nearest) + '? ' if nearest else ''}"
            "`timesformer-zoo list` shows all."
        )


def in_timms_layout(source: str) -> bool:
    """Whether a repository or folder is one that timm reads; else it is one of transformers.

    To be asked before timm is: timm would try for half a minute to reach a Hub that does not answer.

    Raises:
        DownloadError: the repository can't be had.
        CheckpointError: it has no config, or holds a model of another package.
    """
    config = _read_json(source, "config.json")
    if "architecture" in config and config["architecture"] not in ARCHITECTURES:
        raise CheckpointError(f"{source} holds a {config['architecture']}, which is no model of this package")
    return "architecture" in config


def _read_json(source: str, name: str) -> dict[str, Any]:
    path = _find(source, name)
    if path is None:
        raise CheckpointError(f"{source} has no {name}; a model has config.json and model.safetensors")
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{path}: not JSON ({error})") from error
    return content


def _find(source: str, name: str) -> Path | None:
    """The file of a folder or a repository; None if it has no such file."""
    if Path(source).is_dir():
        path = current(source, name)
        return path if path.is_file() else None
    return hub_file(source, name)


def _labels(config: Mapping[str, Any], num_classes: int) -> list[str] | None:
    by_index = {int(index): name for index, name in (config.get("id2label") or {}).items()}
    labels = [by_index.get(index, f"LABEL_{index}") for index in range(num_classes)]
    # What transformers writes where nobody named the classes.
    return None if labels == [f"LABEL_{index}" for index in range(num_classes)] else labels


def _mean_std(source: str) -> dict[str, Any]:
    for name in _PREPROCESSORS:
        if _find(source, name) is not None:
            values = _read_json(source, name)
            if "image_mean" in values and "image_std" in values:
                return {"mean": tuple(values["image_mean"]), "std": tuple(values["image_std"])}
    _logger.warning(
        "%s says nothing of mean and std (no %s): taking 0.45 and 0.225, the authors'. "
        "If it was trained with others, set model.clip = dict(mean=…, std=…)",
        source,
        " or ".join(_PREPROCESSORS),
    )
    return {"mean": (0.45, 0.45, 0.45), "std": (0.225, 0.225, 0.225)}


def _license(source: str) -> str | None:
    from huggingface_hub import ModelCard

    path = _find(source, "README.md")
    return None if path is None else ModelCard.load(path, ignore_metadata_errors=True).data.get("license")
