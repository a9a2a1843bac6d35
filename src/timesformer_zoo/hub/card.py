"""The model card: what a repository's page says, and its metadata."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from timesformer_zoo.model.timesformer import TimeSformer
from timesformer_zoo.video.clip import clip_spec

__all__ = ["MARKER", "CardFacts", "model_card"]

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


@dataclass(frozen=True)
class CardFacts:
    """What a card says that the model itself does not know."""

    metrics: Mapping[str, float] | None = None  # "accuracy" …: value
    training_data: str | None = None
    eval_data: str | None = None  # what the metrics were measured on
    license: str | None = None
    inherited: bool = False  # the licence is that of the weights that the model started from
    origin: str | None = None  # address of the weights that the model started from
    example: str | None = None  # address of a video for the page's widget
    transformers: bool = False  # the repository loads in transformers, too


def model_card(model: TimeSformer, name: str, source: str, labels: Sequence[str] | None, facts: CardFacts) -> str:
    """The text of README.md: YAML metadata, then Markdown.

    Args:
        model: the model.
        name: its name, a title.
        source: what `timm.create_model` takes: "hf-hub:OWNER/NAME" or "local-dir:FOLDER".
        labels: class names by index.
        facts: the rest.
    """
    sections = {
        "Usage": _usage(model, source, facts),
        "Model": _model(model, labels, facts),
        "Training data": facts.training_data,
        "Results": _results(facts),
        "Licence": _licence(facts),
        "Citation": f"```bibtex\n{CITATION}\n```",
    }
    text = "\n\n".join(f"## {title}\n\n{body}" for title, body in sections.items() if body)
    head = f"---\n{_metadata(name, source, facts).to_yaml()}\n---\n{MARKER}"
    return f"{head}\n\n# {name}\n\n{_summary(model)}\n\n{text}\n"


def _metadata(name: str, source: str, facts: CardFacts) -> ModelCardData:
    base = facts.origin.removeprefix(HUB) if facts.origin and facts.origin.startswith(HUB) else None
    data = facts.eval_data or facts.training_data or "not stated"
    results = [
        EvalResult(
            task_type="video-classification",
            dataset_type=re.sub(r"[^a-z0-9/]+", "-", data.lower()).strip("-")[:60],
            dataset_name=data,
            metric_type=metric,
            metric_value=value,
        )
        for metric, value in (facts.metrics or {}).items()
    ]
    extra: dict[str, Any] = {"widget": [{"src": facts.example, "example_title": "Example"}]} if facts.example else {}
    return ModelCardData(
        # The Hub's own snippet runs as it is for transformers alone: timm needs the import that Usage shows.
        library_name="transformers" if facts.transformers else "timm",
        pipeline_tag="video-classification",
        tags=["video-classification", "timesformer", "timesformer-zoo", "timm"],
        license=facts.license,
        base_model=None if source == f"hf-hub:{base}" else base,
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


def _usage(model: TimeSformer, source: str, facts: CardFacts) -> str:
    command, use = "", _FEATURES
    if model.num_classes and model.global_pool in ("token", "avg"):  # what `predict` takes
        command, use = f"\ntimesformer-zoo classify video.mp4 --model {source}", _LABELS
        if clip_spec(model).task == "regression":
            use = _VALUES
    parts = [
        f"```bash\npip install timesformer-zoo{command}\n```",
        f"```python\n{use.format(source=source)}\n```",
    ]
    if facts.transformers:
        place = source.partition(":")[2]
        parts.append(f"""\
It loads in transformers, too, where choosing the frames is up to you:

```python
from transformers import AutoImageProcessor, AutoModelForVideoClassification

processor = AutoImageProcessor.from_pretrained("{place}")
model = AutoModelForVideoClassification.from_pretrained("{place}")
```""")
    return "\n\n".join(parts)


def _model(model: TimeSformer, labels: Sequence[str] | None, facts: CardFacts) -> str:
    spec = clip_spec(model)
    rate = f", counted at {spec.fps:g} frames a second" if spec.fps and spec.sampling == "dense" else ""
    fused = {"logits": "sum of the logits", "softmax": "mean of the softmax"}[spec.fuse]
    if spec.task != "classes":
        fused = {"multilabel": "mean of the probabilities", "regression": "mean of the values"}[spec.task]
    colours = "grey" if spec.in_chans == 1 else "BGR" if spec.bgr else "RGB"
    rows = [
        f"Frames: {spec.num_frames}, {spec.sampling_in_words}{rate}",
        f"Test views: {spec.clips} along time × {spec.crops} crops, fused by the {fused}",
        f"Pixels: {colours} from 0 to 1, mean {_numbers(spec.mean)}, std {_numbers(spec.std)}",
    ]
    if facts.origin:
        rows.append(f"Started from: {facts.origin}")
    if labels:
        shown = ", ".join(labels[:20])
        things = {"classes": "Classes", "multilabel": "Labels, any number of a clip", "regression": "Values"}[spec.task]
        rows.append(f"{things}: {shown}{' …' if len(labels) > 20 else ''}")
    return "\n".join(f"- {row}" for row in rows)


def _results(facts: CardFacts) -> str | None:
    if not facts.metrics:
        return None
    rows = "\n".join(f"| {metric} | {value:g} |" for metric, value in facts.metrics.items())
    data = f"Measured on {facts.eval_data}.\n\n" if facts.eval_data else ""
    return f"{data}| metric | value |\n| --- | --- |\n{rows}"


def _licence(facts: CardFacts) -> str | None:
    if facts.license is None:
        return None
    return f"{facts.license}{', that of the weights it started from' if facts.inherited else ''}."


def _numbers(values: Sequence[float]) -> str:
    return " ".join(f"{value:g}" for value in values)
