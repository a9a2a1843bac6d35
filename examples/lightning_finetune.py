"""Fine-tune with Lightning: pip install lightning

python examples/lightning_finetune.py videos/ --model timesformer_base_divided.k400       # a folder per class
"""

import argparse

import lightning
import timm
import torch
from torch.nn import functional as F
from torch.utils.data import BatchSampler, DataLoader, RandomSampler

import timesformer_zoo  # noqa: F401  (registers the models with timm)
from timesformer_zoo import Batch, VideoDataset, make_loader, normalize_clips, read_videos, save_pretrained


class Classifier(lightning.LightningModule):
    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def training_step(self, batch: Batch) -> torch.Tensor:
        clips = normalize_clips(batch.clips.flatten(0, 1), self.model)  # (B, 1, 3, T, H, W) uint8: one clip each
        loss = F.cross_entropy(self.model(clips), batch.targets)
        self.log("loss", loss, prog_bar=True, batch_size=len(batch.targets))
        return loss

    def validation_step(self, batch: Batch) -> None:
        views = batch.clips.shape[1]  # (B, V, C, T, H, W), normalised
        scores = self.model(batch.clips.flatten(0, 1)).unflatten(0, (-1, views)).sum(1)
        self.log("top1", (scores.argmax(1) == batch.targets).float().mean(), batch_size=len(batch.targets))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=3e-4, weight_decay=0.05)


parser = argparse.ArgumentParser()
parser.add_argument("videos")
parser.add_argument("--model", default="timesformer_tiny_divided.camera_motion")
parser.add_argument("--scratch", action="store_true")
parser.add_argument("--epochs", type=int, default=5)
parser.add_argument("--workers", type=int, default=2)
parser.add_argument("--out", default="with_lightning")
args = parser.parse_args()

train, val = (read_videos("folder", args.videos, split) for split in ("train", "val"))
model = timm.create_model(args.model, pretrained=not args.scratch, num_classes=len(train.classes))


def loader(dataset: VideoDataset) -> DataLoader[Batch]:
    order = RandomSampler(dataset) if dataset.training else range(len(dataset))
    return make_loader(dataset, BatchSampler(order, 8, drop_last=False), workers=args.workers)


trainer = lightning.Trainer(max_epochs=args.epochs, default_root_dir=args.out, log_every_n_steps=1)
trainer.fit(Classifier(model), loader(VideoDataset(train, model, training=True)), loader(VideoDataset(val, model)))
print({name: float(value) for name, value in trainer.callback_metrics.items()})
save_pretrained(model, args.out, labels=train.classes)
