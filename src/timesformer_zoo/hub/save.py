"""Saving a model to a folder and publishing it on the Hub, so that timm, and if asked transformers, load it again."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save_file
from torch import nn

from timesformer_zoo.errors import UploadError
from timesformer_zoo.factories import ARCHITECTURES, architecture_of
from timesformer_zoo.hub.card import MARKER, Start, model_card
from timesformer_zoo.hub.facts import FACTS, CardFacts, Result
from timesformer_zoo.labels import Labels, known_labels, label_names
from timesformer_zoo.model.timesformer import TimeSformer, expect_timesformer
from timesformer_zoo.video.clip import clip_spec
from timesformer_zoo.weights.download import patience
from timesformer_zoo.weights.faults import explained
from timesformer_zoo.weights.table import PAPER
from timesformer_zoo.weights.transformers import to_transformers
from timesformer_zoo.writing import current, whole_folder

if TYPE_CHECKING:
    from huggingface_hub import CommitInfo, HfApi

__all__ = ["card_by_hand", "loads_in_transformers", "push_to_hf_hub", "save_card", "save_pretrained", "write_weights"]

_logger = logging.getLogger(__name__)

_PREPROCESSORS = ("preprocessor_config.json", "video_preprocessor_config.json")
# What an earlier push may have left, and would contradict the new files; those that are pushed are never deleted.
_STALE = ["pytorch_model.bin", *_PREPROCESSORS, FACTS]


def save_pretrained(
    model: nn.Module,
    folder: str | os.PathLike[str],
    *,
    labels: Labels | None = None,
    facts: CardFacts | None = None,
    metrics: Mapping[str, float] | None = None,
    training_data: str | None = None,
    eval_data: str | None = None,
    license: str | None = None,
    example: str | os.PathLike[str] | None = None,
    also_transformers: bool = False,
    repo_id: str | None = None,
) -> Path:
    """Write config.json, model.safetensors and README.md, the model card; with facts for it also card.json.

        save_pretrained(model, "mine", labels=["cat", "dog"])
        timm.create_model("local-dir:mine", pretrained=True)  # anywhere, after `import timesformer_zoo`

    The model is saved as it is now, with every constructor argument, its sampling of clips and its labels. The
    weights keep their dtype; a model is created in float32 unless `create_model` gets a `dtype`.

    All files are replaced, or none: a process that is killed leaves the old model or the new one. It needs room for
    both.

    Args:
        model: a TimeSformer, neither fused nor wrapped.
        folder: made if it does not exist; files of these names in it are replaced, others left alone, as is a model
            card that was written or edited by hand.
        labels: the classes' names by index, or index -> name, or the name of a label set; None: those bound to the
            model's head, if any.
        facts: what the card says that the model does not know: data, recipe, results. The next four are short for some
            of these, and count where both are given.
        metrics: what was measured ("accuracy" …) -> value, from 0 to 1.
        training_data: what it was trained on, in words.
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
        FileNotFoundError: there is no `example`.
        WriteError: the disk is full, or the folder read-only.
    """
    model = expect_timesformer(model)
    _check_plain(model)
    if example is not None and not Path(example).is_file():
        raise FileNotFoundError(f"{example}: there is no such file; an example is a video, to go with the model")
    names = known_labels(model) if labels is None else label_names(labels, model.num_classes)
    facts = _facts(facts, metrics, training_data, eval_data, license)
    config, weights = _timm_config(model, names, facts), model.state_dict()
    files: dict[str, Any] = {"config.json": config}
    if also_transformers:
        # One file of weights for both: timm's way in converts transformers' keys, exactly.
        theirs, weights = to_transformers(model, names)
        files["config.json"] = {**theirs, **config}
        files |= {name: _preprocessor(model) for name in _PREPROCESSORS}
    folder = Path(folder)
    if example is not None:
        facts = replace(facts, example=f"example{Path(example).suffix}")
    elif facts.example is not None and not (folder / facts.example).is_file():
        facts = replace(facts, example=None)
    card = _card(model, folder, repo_id, names, facts, also_transformers)
    with whole_folder(folder, needed=sum(tensor.nbytes for tensor in weights.values())) as new:
        write_weights(weights, new / "model.safetensors")
        for name, content in files.items():
            _write_json(new / name, content)
        # Also without facts: an earlier model's would contradict. No facts, no file, in a folder that has none.
        if facts.to_dict() or current(folder, FACTS).exists():
            _write_json(new / FACTS, facts.to_dict())
        if card is not None:
            (new / "README.md").write_text(card, encoding="utf-8")
        if example is not None and facts.example is not None:
            shutil.copyfile(example, new / facts.example)
    return folder


def save_card(model: nn.Module, folder: str | os.PathLike[str], facts: CardFacts) -> None:
    """Write the card of a model that `save_pretrained` has saved once more, with other facts.

    Args:
        model: what `load_model(folder)` gives.
        folder: of the model.
        facts: all of them.

    Raises:
        WriteError: the disk is full, or the folder read-only.
    """
    model, folder = expect_timesformer(model), Path(folder)
    card = _card(model, folder, None, known_labels(model), facts, loads_in_transformers(folder))
    with whole_folder(folder) as new:
        _write_json(new / FACTS, facts.to_dict())
        if card is not None:
            (new / "README.md").write_text(card, encoding="utf-8")


def loads_in_transformers(folder: str | os.PathLike[str]) -> bool:
    """Whether a saved model is one that transformers loads, too."""
    return "model_type" in json.loads(current(folder, "config.json").read_text(encoding="utf-8"))


def card_by_hand(folder: str | os.PathLike[str]) -> str | None:
    """The text of a folder's README.md if it was written or edited by hand, else None."""
    readme = current(folder, "README.md")
    text = readme.read_text(encoding="utf-8") if readme.is_file() else MARKER
    return None if MARKER in text else text


def write_weights(weights: Mapping[str, torch.Tensor], path: Path) -> None:
    """A safetensors file; transformers asks for the format in it."""
    save_file({key: value.contiguous() for key, value in weights.items()}, path, metadata={"format": "pt"})


def push_to_hf_hub(
    model: nn.Module,
    repo_id: str,
    *,
    labels: Labels | None = None,
    facts: CardFacts | None = None,
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
    card: str | None = None,
) -> CommitInfo:
    """Publish a model; `timm.create_model("hf-hub:" + repo_id, pretrained=True)` has it again, with its labels.

    All files arrive in one commit, or, where anything fails, none does. A model card that was written or edited by
    hand is kept.

    Args:
        model, labels, facts, metrics, training_data, eval_data, license, example, also_transformers: see
            `save_pretrained`.
        repo_id: "OWNER/NAME"; without an owner, the token's. Created if need be.
        private: for a new repository.
        token: None: that of `hf auth login` or HF_TOKEN. It goes to the Hub alone, and nowhere else.
        revision: branch, which must exist; None: main.
        create_pr: open a pull request instead of committing to the branch.
        commit_message: first line of the commit.
        card: the text of README.md; None: written from model and facts.

    Returns:
        The commit; its `commit_url` is where to look at it.

    Raises:
        TypeError, ValueError, FileNotFoundError: as `save_pretrained`, before anything is sent.
        UploadError: nobody is logged in, or the Hub refused, or did not answer.
    """
    from huggingface_hub import HfApi

    with TemporaryDirectory() as temporary:
        api = HfApi(token=token, library_name="timesformer-zoo")
        merged = _facts(facts, metrics, training_data, eval_data, license)

        def save(repo_id: str) -> Path:
            return save_pretrained(
                model,
                temporary,
                labels=labels,
                facts=merged,
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
            if card is not None:
                (folder / "README.md").write_text(card, encoding="utf-8")
            elif _has_own_card(api, full_id, revision):
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


def _facts(
    facts: CardFacts | None,
    metrics: Mapping[str, float] | None,
    training_data: str | None,
    eval_data: str | None,
    license: str | None,
) -> CardFacts:
    """The facts, with what was given in short."""
    facts = facts or CardFacts()
    if metrics:
        facts = facts.with_result(Result(dict(metrics), eval_data))
    elif eval_data:
        facts = replace(facts, results=[replace(result, data=eval_data) for result in facts.results])
    training_data, license = training_data or facts.training_data, license or facts.license
    return replace(facts, training_data=training_data, license=license)


def _card(
    model: TimeSformer,
    folder: Path,
    repo_id: str | None,
    labels: list[str] | None,
    facts: CardFacts,
    in_transformers: bool,
) -> str | None:
    """The text of README.md; None where there is one that was written by hand."""
    if card_by_hand(folder) is not None:
        _logger.warning("%s was written or edited by hand, and is kept", folder / "README.md")
        return None
    source = f"hf-hub:{repo_id}" if repo_id else f"local-dir:{folder}"
    name = repo_id.rpartition("/")[2] if repo_id else folder.resolve().name
    example = _address(repo_id, facts.example) if facts.example else None
    return model_card(model, name, source, labels, facts, example=example, transformers=in_transformers)


def _timm_config(model: TimeSformer, labels: list[str] | None, facts: CardFacts) -> dict[str, Any]:
    """config.json as timm reads it.

    Written here and not by timm's `save_config_for_hf`, which takes size and labels of the weights a model was created
    with for its present ones, and knows no model that was built without a factory.
    """
    start = getattr(model, "pretrained_cfg", None) or {}
    spec = clip_spec(model)
    architecture = start.get("architecture")
    if architecture not in ARCHITECTURES:
        architecture = architecture_of(model.attention)  # any will do: model_args has all that differs
    weights = Start.of(model, "", facts)
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
        license=weights.license,
        origin_url=weights.origin,
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


def _write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _address(repo_id: str | None, file: str) -> str:
    from huggingface_hub import hf_hub_url

    return hf_hub_url(repo_id, file) if repo_id else file


def _has_own_card(api: Any, repo_id: str, revision: str | None) -> bool:
    if not api.file_exists(repo_id, "README.md", revision=revision):
        return False
    card = Path(api.hf_hub_download(repo_id, "README.md", revision=revision)).read_text(encoding="utf-8")
    return MARKER not in card
