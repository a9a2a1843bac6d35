"""A classifier without training: a video has the class that most of its nearest neighbours in a library have.

    python examples/knn.py videos/ --library library            # videos/train/CLASS/*.mp4 and videos/val/CLASS/*.mp4
    python examples/knn.py clips/ --test test --stride 1        # of folders of frames, each of which counts

The vote is that of Wu et al., "Unsupervised Feature Learning via Non-Parametric Instance Discrimination", CVPR 2018,
section 3.4: each of the k neighbours counts exp(cosine / 0.07).
"""

import argparse
from pathlib import Path

import torch
from torch.nn import functional as F

from timesformer_zoo import Library, VideoList, embed, load_model, read_videos


def features(library: Library, videos: VideoList) -> tuple[torch.Tensor, torch.Tensor]:
    """Of the videos that could be read: unit features (N, D), a row a video, and classes (N,)."""
    row_of = {library.path(row): row for row in range(len(library))}
    known = [(row_of[sample.path], sample.target) for sample in videos.samples if sample.path in row_of]
    if not known:
        raise SystemExit(f"{library.folder}: none of the {len(videos.samples)} videos of {videos.split} could be read")
    rows, classes = zip(*known, strict=True)
    return F.normalize(library.features[list(rows)].float(), dim=1), torch.tensor(classes)


def vote(queries: torch.Tensor, rows: torch.Tensor, classes: torch.Tensor, k: int) -> torch.Tensor:
    """Features (M, D) -> the class of each (M,)."""
    cosines, nearest = (queries @ rows.T).topk(min(k, len(rows)))
    votes = torch.zeros(len(queries), int(classes.max()) + 1)
    return votes.scatter_add_(1, classes[nearest], (cosines / 0.07).exp()).argmax(1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("videos", type=Path, help="with a folder for each split, and in it one for each class")
    parser.add_argument("--train", default="train", help="split whose classes are known")
    parser.add_argument("--test", default="val", help="split that is asked about")
    parser.add_argument("--library", type=Path, default=Path("library"), help="made there, and read again")
    parser.add_argument("--model", default="timesformer_tiny_divided.camera_motion")
    parser.add_argument("--stride", type=int, metavar="N", help="take every Nth frame, as the model counts them")
    parser.add_argument("--k", type=int, default=10)
    args = parser.parse_args()
    model = load_model(args.model)
    if args.stride:
        model.clip = {**(model.clip or {}), "stride": args.stride}
    train, test = (read_videos("folder", args.videos, split) for split in (args.train, args.test))
    paths = [sample.path for videos in (train, test) for sample in videos.samples]
    library = embed(model, paths, args.library, per="video")
    rows, classes = features(library, train)
    queries, truth = features(library, test)
    right = (vote(queries, rows, classes, args.k) == truth).float().mean().item()
    print(f"{right:.1%} of {len(truth)} right; {args.k} neighbours of {len(rows)}, {len(train.classes)} classes")


if __name__ == "__main__":
    main()
