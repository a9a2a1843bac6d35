"""Fine-tune with the Trainer of transformers: pip install transformers accelerate

python examples/transformers_trainer.py videos/ --model timesformer_base_divided.k400       # a folder per class
"""

import argparse

import timm
import torch
from torch.nn import functional as F
from transformers import EvalPrediction, Trainer, TrainingArguments

import timesformer_zoo  # noqa: F401  (registers the models with timm)
from timesformer_zoo import Item, VideoDataset, normalize_clips, read_videos, save_pretrained


class ForTrainer(torch.nn.Module):
    """What Trainer asks of a model: keyword arguments in, a dict with the loss out."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        if self.training:  # clips are bytes until they are on the device; test views are normalised
            pixel_values = normalize_clips(pixel_values, self.model)
        views = pixel_values.shape[1]  # (B, V, C, T, H, W); in training, V is 1
        logits = self.model(pixel_values.flatten(0, 1)).unflatten(0, (-1, views)).mean(1)
        return {"loss": F.cross_entropy(logits, labels), "logits": logits}


def collate(items: list[Item]) -> dict[str, torch.Tensor]:
    clips = torch.stack([item.clips for item in items if item.clips is not None])
    return {"pixel_values": clips, "labels": torch.tensor([item.target for item in items])}


def accuracy(prediction: EvalPrediction) -> dict[str, float]:
    return {"accuracy": float((prediction.predictions.argmax(1) == prediction.label_ids).mean())}


parser = argparse.ArgumentParser()
parser.add_argument("videos")
parser.add_argument("--model", default="timesformer_tiny_divided.camera_motion")
parser.add_argument("--scratch", action="store_true")
parser.add_argument("--epochs", type=int, default=5)
parser.add_argument("--workers", type=int, default=2)
parser.add_argument("--out", default="with_trainer")
args = parser.parse_args()

train, val = (read_videos("folder", args.videos, split) for split in ("train", "val"))
model = timm.create_model(args.model, pretrained=not args.scratch, num_classes=len(train.classes))
settings = TrainingArguments(
    output_dir=args.out,
    num_train_epochs=args.epochs,
    per_device_train_batch_size=8,
    learning_rate=3e-4,
    weight_decay=0.05,
    eval_strategy="epoch",
    save_strategy="no",
    report_to="none",
    remove_unused_columns=False,
    dataloader_num_workers=args.workers,
)
trainer = Trainer(
    model=ForTrainer(model),
    args=settings,
    data_collator=collate,
    train_dataset=VideoDataset(train, model, training=True),
    eval_dataset=VideoDataset(val, model),
    compute_metrics=accuracy,
)
trainer.train()
print(trainer.evaluate())
save_pretrained(model.cpu(), args.out, labels=train.classes)
