"""The model card: what a repository's page says, and its metadata."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from huggingface_hub import EvalResult, ModelCardData

from timesformer_zoo.factories import weights_loaded
from timesformer_zoo.hub.facts import CardFacts
from timesformer_zoo.model.timesformer import TimeSformer
from timesformer_zoo.video.clip import ClipSpec, clip_spec

__all__ = ["HUB", "MARKER", "Start", "model_card"]

# What a model does, by its kind of target.
_DOES = {
    "classes": "sorts clips into {} classes",
    "multilabel": "says which of {} labels a clip has",
    "regression": "estimates {} values of a clip",
}
MARKER = "<!-- Written by timesformer-zoo. Remove this line to keep your edits when you push again. -->"
HUB = "https://huggingface.co/"

CITATION = """\
@inproceedings{bertasius2021timesformer,
  title = {Is Space-Time Attention All You Need for Video Understanding?},
  author = {Bertasius, Gedas and Wang, Heng and Torresani, Lorenzo},
  booktitle = {International Conference on Machine Learning},
  year = {2021},
}"""

# How a model that `predict` takes is used, and any other.
_LABELS = """\
import timm
import timesformer_zoo  # registers the models with timm
from timesformer_zoo import predict

model = timm.create_model("{source}", pretrained=True)
for label, probability, _ in predict(model, "video.mp4").top:
    print(f"{{probability:6.1%}}  {{label}}")"""
# Of values, which have no probabilities.
_VALUES = """\
import timm
import timesformer_zoo  # registers the models with timm
from timesformer_zoo import predict

model = timm.create_model("{source}", pretrained=True)
for name, value in predict(model, "video.mp4").values.items():
    print(f"{{value:g}}  {{name}}")"""
_FEATURES = """\
import timm
import timesformer_zoo  # registers the models with timm
from timesformer_zoo import clip_transform, read_clip

model = timm.create_model("{source}", pretrained=True).eval()
clip = clip_transform(model)(read_clip("video.mp4", model))  # C T H W
output = model(clip.unsqueeze(0))"""
_FROM_TRANSFORMERS = """\
It loads in transformers, too:

```python
from transformers import AutoImageProcessor, AutoModelForVideoClassification

processor = AutoImageProcessor.from_pretrained("{place}")
model = AutoModelForVideoClassification.from_pretrained("{place}")
```

transformers does not know how this model's clips are made. Its `pipeline("video-classification")` takes frames spread
evenly over the whole video, at one view; this model was made for {sampling}, {views}. So its answers differ from those
above, and so does its accuracy from the one below: use the code above, or choose the frames likewise."""

# What a head's outputs are, by the kind of target.
_THINGS = {"classes": "Classes", "multilabel": "Labels, any number of a clip", "regression": "Values"}

# Names of metrics, as the Hub and people call them; others are called what they are called.
METRICS = {
    "accuracy": "Top-1 accuracy",
    "top_5_accuracy": "Top-5 accuracy",
    "mean_class_accuracy": "Mean accuracy of the classes",
    "mean_average_precision": "Mean average precision (mAP)",
    "f1": "Mean F1 of the labels",
    "mae": "Mean absolute error",
    "r_squared": "R²",
    "pearsonr": "Pearson's r",
}
_MANY = 20  # classes; more are folded
_EPOCHS = 12  # rows of the table of epochs; of more, so many, evenly chosen


def model_card(
    model: TimeSformer,
    name: str,
    source: str,
    labels: Sequence[str] | None,
    facts: CardFacts,
    *,
    example: str | None = None,
    transformers: bool = False,
) -> str:
    """The text of README.md: YAML metadata, then Markdown.

    Args:
        model: the model.
        name: its name, a title.
        source: what `timm.create_model` takes: "hf-hub:OWNER/NAME" or "local-dir:FOLDER".
        labels: class names by index.
        facts: what the model does not know.
        example: address of a video for the page's widget.
        transformers: the repository loads in transformers, too.
    """
    start = Start.of(model, source, facts)
    sections = {
        "Usage": _usage(model, source, transformers),
        "Model": _model(model, labels, start),
        "Training": _training(facts),
        "Results": _results(facts),
        "Licence": _licence(start),
        "Citation": f"```bibtex\n{CITATION}\n```",
    }
    text = "\n\n".join(f"## {title}\n\n{body}" for title, body in sections.items() if body)
    head = f"---\n{_metadata(name, start, facts, example, transformers).to_yaml()}\n---\n{MARKER}"
    return f"{head}\n\n# {name}\n\n{_summary(model)}\n\n{text}\n"


class Start(NamedTuple):
    """The weights that a model started from, if it did, and the licence that comes of it."""

    origin: str | None  # an address, or a registered name
    base: str | None  # OWNER/NAME on the Hub
    license: str | None
    inherited: bool  # the licence is that of the weights

    @classmethod
    def of(cls, model: TimeSformer, source: str, facts: CardFacts) -> Start:
        """Of a model that is, or will be, at `source`."""
        known: Mapping[str, Any] = (getattr(model, "pretrained_cfg", None) or {}) if weights_loaded(model) else {}
        origin = known.get("origin_url") or (HUB + known["hf_hub_id"] if known.get("hf_hub_id") else None)
        if origin and "://" not in origin and known.get("tag"):  # a page of this package: its weights have a name
            origin = f"{known['architecture']}.{known['tag']}"
        origin = origin and origin.partition("@")[0]
        base = origin.removeprefix(HUB) if origin and origin.startswith(HUB) else None
        license = facts.license or known.get("license")
        return cls(origin, None if source == f"hf-hub:{base}" else base, license, inherited=facts.license is None)


def _metadata(name: str, start: Start, facts: CardFacts, example: str | None, transformers: bool) -> ModelCardData:
    extra: dict[str, Any] = {}
    if start.base:
        extra["base_model_relation"] = "finetune"
    if example:
        extra["widget"] = [{"src": example, "example_title": "Example"}]
    results = [
        EvalResult(
            task_type="video-classification",
            task_name="Video classification",
            dataset_type=re.sub(r"[^a-z0-9/]+", "-", (result.data or "not stated").lower()).strip("-")[:60] or "other",
            dataset_name=result.data or "not stated",
            dataset_split=result.split,
            metric_type=metric,
            metric_name=METRICS.get(metric, metric),
            metric_value=value,
        )
        for result in facts.results
        for metric, value in result.metrics.items()
    ]
    return ModelCardData(
        # The Hub shows a snippet for the libraries that it knows, by this and by the tags. timm's would not run: it
        # lacks the import that registers the models. So neither says timm, and what Usage shows is all there is.
        # transformers' runs; what it does otherwise is said in Usage.
        library_name="transformers" if transformers else "timesformer-zoo",
        pipeline_tag="video-classification",
        tags=["video-classification", "timesformer", "timesformer-zoo"],
        license=start.license,
        base_model=start.base,
        datasets=list(facts.datasets) or None,
        model_name=name if results else None,
        eval_results=results or None,
        **extra,
    )


def _summary(model: TimeSformer) -> str:
    height, width = model.img_size
    millions = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    steps = ", then ".join(step.name for step in model.attention.steps)
    does = _DOES[clip_spec(model).task].format(model.num_classes) if model.num_classes else "makes features of clips"
    return (
        f"A TimeSformer of {model.attention.value} attention ({steps}) that {does}; a clip is "
        f"{model.num_frames} frames of {height}×{width} pixels. {millions:.1f} M parameters."
    )


def _usage(model: TimeSformer, source: str, transformers: bool) -> str:
    command, use = "", _FEATURES
    if model.num_classes and model.global_pool in ("token", "avg"):  # what `predict` takes
        command, use = f"\ntimesformer-zoo classify video.mp4 --model {shlex.quote(source)}", _LABELS
        if clip_spec(model).task == "regression":
            use = _VALUES
    parts = [
        f"```bash\npip install timesformer-zoo{command}\n```",
        f"```python\n{use.format(source=source)}\n```",
    ]
    if transformers:
        spec = clip_spec(model)
        place = source.partition(":")[2]
        sampling = f"{spec.num_frames} frames, {spec.sampling_in_words}"
        parts.append(_FROM_TRANSFORMERS.format(place=place, sampling=sampling, views=_views(spec)))
    return "\n\n".join(parts)


def _model(model: TimeSformer, labels: Sequence[str] | None, start: Start) -> str:
    spec = clip_spec(model)
    rate = f", counted at {spec.fps:g} frames a second" if spec.fps and spec.sampling == "dense" else ""
    fused = {"logits": "sum of the logits", "softmax": "mean of the softmax"}[spec.fuse]
    if spec.task != "classes":
        fused = {"multilabel": "mean of the probabilities", "regression": "mean of the values"}[spec.task]
    colours = "grey" if spec.in_chans == 1 else "BGR" if spec.bgr else "RGB"
    rows = [
        f"Frames: {spec.num_frames}, {spec.sampling_in_words}{rate}",
        f"Test views: {_views(spec)}, fused by the {fused}",
        f"Pixels: {colours} from 0 to 1, mean {_numbers(spec.mean)}, std {_numbers(spec.std)}",
    ]
    if start.origin:
        rows.append(f"Started from: {start.origin}")
    if labels and len(labels) <= _MANY:
        rows.append(f"{_THINGS[spec.task]}: {', '.join(labels)}")
    text = "\n".join(f"- {row}" for row in rows)
    if labels and len(labels) > _MANY:
        things = _THINGS[spec.task].partition(",")[0].lower()
        text += f"\n\n{_folded(f'{len(labels)} {things}', ', '.join(labels))}"
    return text


def _training(facts: CardFacts) -> str | None:
    parts = [facts.training_data] if facts.training_data else []
    if facts.recipe:
        rows = [(name, "none" if value is None else _cell(value)) for name, value in facts.recipe.items()]
        parts.append(_folded("Recipe", _table(("setting", "value"), rows)))
    if facts.history:
        last = len(facts.history) - 1
        shown = sorted({round(i * last / max(_EPOCHS - 1, 1)) for i in range(_EPOCHS)})
        known = (name for entry in facts.history for name, value in entry.items() if value is not None)
        columns = list(dict.fromkeys(known))
        entries = [[_cell(facts.history[i].get(name)) for name in columns] for i in shown]
        things = "epochs" if "epoch" in columns else "fits"  # of a probe
        parts.append(_folded(f"{last + 1} {things}", _table(columns, entries)))
    return "\n\n".join(parts) or None


def _results(facts: CardFacts) -> str | None:
    parts = []
    for result in facts.results:
        where = ", ".join(filter(None, (result.data, result.split and f"split {result.split}", result.how)))
        rows = [(METRICS.get(metric, metric), _cell(value)) for metric, value in result.metrics.items()]
        parts.append((f"Measured on {where}.\n\n" if where else "") + _table(("metric", "value"), rows))
    return "\n\n".join(parts) or None


def _licence(start: Start) -> str | None:
    if start.license is None:
        return None
    text = f"{start.license}{', that of the weights it started from' if start.inherited else ''}."
    return f"{text} Non-commercial use only." if re.search(r"\bnc\b", start.license) else text


def _views(spec: ClipSpec) -> str:
    return f"{spec.clips} along time × {spec.crops} crops"


def _folded(title: str, body: str) -> str:
    return f"<details><summary>{title}</summary>\n\n{body}\n\n</details>"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def _cell(value: object) -> str:
    """A number with four digits, from 1000 up with six, a list with commas, what is not known as nothing."""
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_cell, value))
    if isinstance(value, float):
        return f"{value:.{4 if abs(value) < 1000 else 6}g}"
    return "" if value is None else str(value)


def _numbers(values: Sequence[float]) -> str:
    return " ".join(f"{value:g}" for value in values)
