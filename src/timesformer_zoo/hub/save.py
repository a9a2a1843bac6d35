"""Saving a model to a folder and publishing it on the Hub, so that timm, and if asked transformers, load it again."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save_file
from torch import nn

from timesformer_zoo.errors import UploadError
from timesformer_zoo.factories import ARCHITECTURES, architecture_of, weights_loaded
from timesformer_zoo.hub.card import HUB, MARKER, CardFacts, model_card
from timesformer_zoo.labels import Labels, known_labels, label_names
from timesformer_zoo.model.timesformer import TimeSformer, expect_timesformer
from timesformer_zoo.video.clip import clip_spec
from timesformer_zoo.weights.download import patience
from timesformer_zoo.weights.faults import explained
from timesformer_zoo.weights.table import PAPER
from timesformer_zoo.weights.transformers import to_transformers

if TYPE_CHECKING:
    from huggingface_hub import CommitInfo, HfApi

__all__ = ["push_to_hf_hub", "save_pretrained"]

_logger = logging.getLogger(__name__)

_PREPROCESSORS = ("preprocessor_config.json", "video_preprocessor_config.json")
# What an earlier push may have left, and would contradict the new files; those that are pushed are never deleted.
_STALE = ["pytorch_model.bin", *_PREPROCESSORS]


def save_pretrained(
    model: nn.Module,
    folder: str | os.PathLike[str],
    *,
    labels: Labels | None = None,
    metrics: Mapping[str, float] | None = None,
    training_data: str | None = None,
    eval_data: str | None = None,
    license: str | None = None,
    example: str | os.PathLike[str] | None = None,
    also_transformers: bool = False,
    repo_id: str | None = None,
) -> Path:
    """Write config.json, model.safetensors and README.md, the model card.

        save_pretrained(model, "mine", labels=["cat", "dog"])
        timm.create_model("local-dir:mine", pretrained=True)  # anywhere, after `import timesformer_zoo`

    The model is saved as it is now, with every constructor argument, its sampling of clips and its labels. The
    weights keep their dtype; a model is created in float32 unless `create_model` gets a `dtype`.

    Args:
        model: a TimeSformer, neither fused nor wrapped.
        folder: made if it does not exist; files of these names in it are replaced.
        labels: the classes' names by index, or index -> name, or the name of a label set; None: those bound to the
            model's head, if any.
        metrics: what was measured ("accuracy" …) -> value, for the card.
        training_data: what it was trained on, in words, for the card.
        eval_data: what the metrics were measured on.
        license: an identifier as the Hub has it; None: that of the weights the model started from, if it did.
        example: a video file to go with it, for the widget on the repository's page.
        also_transformers: write weights and config so that transformers loads the same folder, too.
        repo_id: the repository that the folder will be, for the card; None: the card shows how to load the folder.

    Returns:
        The folder.

    Raises:
        TypeError: not a TimeSformer, but something around it.
        ValueError: the model is fused or otherwise not as its arguments would make it; labels do not fit its classes;
            transformers has no such model.
    """
    model = expect_timesformer(model)
    _check_plain(model)
    names = known_labels(model) if labels is None else label_names(labels, model.num_classes)
    config, weights = _timm_config(model, names, license), model.state_dict()
    extra: dict[str, dict[str, Any]] = {}
    if also_transformers:
        # One file of weights for both: timm's way in converts transformers' keys, exactly.
        theirs, weights = to_transformers(model, names)
        config = {**theirs, **config}
        extra = {name: _preprocessor(model) for name in _PREPROCESSORS}
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    _save_weights(weights, folder / "model.safetensors")
    for name, content in {"config.json": config, **extra}.items():
        (folder / name).write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    video = None
    if example is not None:
        video = f"example{Path(example).suffix}"
        if Path(example).resolve() != (folder / video).resolve():
            shutil.copyfile(example, folder / video)
    facts = CardFacts(
        metrics=metrics,
        training_data=training_data,
        eval_data=eval_data,
        license=config["pretrained_cfg"].get("license"),
        inherited=license is None,
        origin=config["pretrained_cfg"].get("origin_url"),
        example=_address(repo_id, video) if video else None,
        transformers=also_transformers,
    )
    source = f"hf-hub:{repo_id}" if repo_id else f"local-dir:{folder}"
    name = repo_id.rpartition("/")[2] if repo_id else folder.resolve().name
    (folder / "README.md").write_text(model_card(model, name, source, names, facts), encoding="utf-8")
    return folder


def push_to_hf_hub(
    model: nn.Module,
    repo_id: str,
    *,
    labels: Labels | None = None,
    metrics: Mapping[str, float] | None = None,
    training_data: str | None = None,
    eval_data: str | None = None,
    license: str | None = None,
    example: str | os.PathLike[str] | None = None,
    also_transformers: bool = False,
    private: bool = False,
    token: str | None = None,
    revision: str | None = None,
    create_pr: bool = False,
    commit_message: str = "Add model",
) -> CommitInfo:
    """Publish a model; `timm.create_model("hf-hub:" + repo_id, pretrained=True)` has it again, with its labels.

    All files arrive in one commit, or, where anything fails, none does. A model card that was written or edited by
    hand is kept.

    Args:
        model, labels, metrics, training_data, eval_data, license, example, also_transformers: see `save_pretrained`.
        repo_id: "OWNER/NAME"; without an owner, the token's. Created if need be.
        private: for a new repository.
        token: None: that of `hf auth login` or HF_TOKEN. It goes to the Hub alone, and nowhere else.
        revision: branch, which must exist; None: main.
        create_pr: open a pull request instead of committing to the branch.
        commit_message: first line of the commit.

    Returns:
        The commit; its `commit_url` is where to look at it.

    Raises:
        TypeError, ValueError: as `save_pretrained`, before anything is sent.
        UploadError: nobody is logged in, or the Hub refused, or did not answer.
    """
    from huggingface_hub import HfApi

    with TemporaryDirectory() as temporary:
        api = HfApi(token=token, library_name="timesformer-zoo")
        given = dict(labels=labels, metrics=metrics, training_data=training_data, eval_data=eval_data, license=license)

        def save(repo_id: str) -> Path:
            return save_pretrained(
                model,
                temporary,
                **given,  # type: ignore[arg-type]
                example=example,
                also_transformers=also_transformers,
                repo_id=repo_id,
            )

        folder = save(repo_id)  # before the repository is made: a model that can't be saved leaves no empty one
        with explained(UploadError, f"{repo_id} could not be published", repo_id):
            _check_login(api)
            full_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
            if full_id != repo_id:
                folder = save(full_id)
            if _has_own_card(api, full_id, revision):
                _logger.info("%s has a model card of its own, which is kept", full_id)
                (folder / "README.md").unlink()
            commit: CommitInfo = api.upload_folder(
                repo_id=full_id,
                folder_path=folder,
                revision=revision,
                create_pr=create_pr,
                commit_message=commit_message,
                delete_patterns=_STALE,
            )
        return commit


def _check_login(api: HfApi) -> None:
    """Raise what the client raises unless its token is somebody's; with a limit of time, which `HfApi` has not."""
    from huggingface_hub import get_session, get_token, hf_raise_for_status
    from huggingface_hub.errors import LocalTokenNotFoundError

    token = api.token or get_token()
    if not token:
        raise LocalTokenNotFoundError("no token")
    headers = {"authorization": f"Bearer {token}"}
    hf_raise_for_status(get_session().get(f"{api.endpoint}/api/whoami-v2", headers=headers, timeout=patience()))


def _check_plain(model: TimeSformer) -> None:
    with torch.device("meta"):
        plain = TimeSformer(**model.model_args).state_dict()
    own = model.state_dict()
    if missing := [key for key in plain if key not in own or own[key].shape != plain[key].shape]:
        fused = " It looks fused: save it before fuse()." if any(".fc." in key for key in missing) else ""
        raise ValueError(
            f"the model lacks {len(missing)} of the weights that a model of its arguments has ({missing[0]} …), "
            f"and could not be loaded again.{fused}"
        )
    if extra := [key for key in own if key not in plain]:
        raise ValueError(
            f"the model has {len(extra)} weights that a model of its arguments does not have ({extra[0]} …), and could "
            "not be loaded again; merge or remove what was added to it (adapters: merge_and_unload)"
        )


def _timm_config(model: TimeSformer, labels: list[str] | None, license: str | None) -> dict[str, Any]:
    """config.json as timm reads it.

    Written here and not by timm's `save_config_for_hf`, which takes size and labels of the weights a model was created
    with for its present ones, and knows no model that was built without a factory.
    """
    start = getattr(model, "pretrained_cfg", None) or {}
    spec = clip_spec(model)
    architecture = start.get("architecture")
    if architecture not in ARCHITECTURES:
        architecture = architecture_of(model.attention)  # any will do: model_args has all that differs
    origin = start.get("origin_url") or (HUB + start["hf_hub_id"].partition("@")[0] if start.get("hf_hub_id") else None)
    clip = {field: value for field, value in (model.clip or {}).items() if field != "labels"}  # label_names has them
    # No tag: it would stand for the weights, and the labels, that the model started from.
    pretrained_cfg = dict(
        input_size=[model.in_chans, *model.img_size],
        fixed_input_size=True,
        interpolation="bilinear",
        crop_pct=1.0,
        mean=list(spec.mean),
        std=list(spec.std),
        num_classes=model.num_classes,
        first_conv="patch_embed.proj",
        classifier="head",
        license=license or (start.get("license") if weights_loaded(model) else None),
        origin_url=origin if weights_loaded(model) else None,
        paper_ids=PAPER,
    )
    config = dict(
        architecture=architecture,
        num_classes=model.num_classes,
        num_features=model.num_features,
        global_pool=model.global_pool,
        label_names=labels,
        model_args={**model.model_args, "clip": clip or None},
        pretrained_cfg={key: value for key, value in pretrained_cfg.items() if value is not None},
    )
    return {key: value for key, value in config.items() if value is not None}


def _preprocessor(model: TimeSformer) -> dict[str, Any]:
    """What transformers' image and video processors read; their defaults are ImageNet's mean and std."""
    spec = clip_spec(model)
    height, width = spec.size
    return dict(
        image_processor_type="VideoMAEImageProcessor",
        video_processor_type="TimesformerVideoProcessor",
        do_resize=True,
        size={"shortest_edge": min(height, width)},
        resample=2,  # bilinear
        do_center_crop=True,
        crop_size={"height": height, "width": width},
        do_rescale=True,
        rescale_factor=1 / 255,
        do_normalize=True,
        image_mean=list(spec.mean),
        image_std=list(spec.std),
    )


def _save_weights(weights: Mapping[str, torch.Tensor], path: Path) -> None:
    # transformers asks for the format. The file is replaced at once: a killed process leaves the old one.
    partial = path.with_name(f".{path.name}.part")
    save_file({key: value.contiguous() for key, value in weights.items()}, partial, metadata={"format": "pt"})
    os.replace(partial, path)


def _address(repo_id: str | None, file: str) -> str:
    from huggingface_hub import hf_hub_url

    return hf_hub_url(repo_id, file) if repo_id else file


def _has_own_card(api: Any, repo_id: str, revision: str | None) -> bool:
    if not api.file_exists(repo_id, "README.md", revision=revision):
        return False
    card = Path(api.hf_hub_download(repo_id, "README.md", revision=revision)).read_text(encoding="utf-8")
    return MARKER not in card
