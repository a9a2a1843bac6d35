"""A plain PyTorch loop: the package reads the videos and has the model, the rest is yours.

python examples/plain_pytorch.py videos/ --model timesformer_base_divided.k400       # a folder per class
"""

import argparse

import timm
import torch
from torch.nn import functional as F
from torch.utils.data import BatchSampler, RandomSampler

import timesformer_zoo  # noqa: F401  (registers the models with timm)
from timesformer_zoo import (
    VideoDataset,
    evaluate,
    make_loader,
    normalize_clips,
    read_videos,
    save_pretrained,
    set_labels,
)

parser = argparse.ArgumentParser()
parser.add_argument("videos")
parser.add_argument("--model", default="timesformer_tiny_divided.camera_motion")
parser.add_argument("--scratch", action="store_true")
parser.add_argument("--epochs", type=int, default=5)
parser.add_argument("--workers", type=int, default=2)
parser.add_argument("--out", default="plain")
args = parser.parse_args()

train, val = (read_videos("folder", args.videos, split) for split in ("train", "val"))
print(train.report())
device = "cuda" if torch.cuda.is_available() else "cpu"
model = timm.create_model(args.model, pretrained=not args.scratch, num_classes=len(train.classes)).to(device)
set_labels(model, train.classes)
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4, weight_decay=0.05)

dataset = VideoDataset(train, model, training=True)
loader = make_loader(dataset, BatchSampler(RandomSampler(dataset), 8, drop_last=False), workers=args.workers)
for epoch in range(args.epochs):
    model.train()
    for batch in loader:
        # Training clips are bytes until they are on the device: (B, 1, 3, T, H, W) uint8 -> (B, C, T, H, W) float32
        clips = normalize_clips(batch.clips.flatten(0, 1).to(device), model)
        loss = F.cross_entropy(model(clips), batch.targets.to(device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    print(f"epoch {epoch + 1}: loss {loss:.3f}, {evaluate(model, val, progress=False).summary()}")
save_pretrained(model, args.out)
