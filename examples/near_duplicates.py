"""Videos that are copies of each other, re-encoded, scaled or cropped: pairs whose features are nearly the same.

    python examples/near_duplicates.py footage/ --library library --least 0.9

Two videos are compared by their windows in order: the mean of the cosines of the first with the first, the second with
the second, and so on. Videos whose lengths differ by more than a tenth are no copies; what is cut out of a longer one
is found by `timesformer-zoo search`.
"""

import argparse
from itertools import combinations
from pathlib import Path

from torch.nn import functional as F

from timesformer_zoo import VIDEO_SUFFIXES, Library, embed


def pairs(library: Library, least: float) -> list[tuple[float, str, str]]:
    """(similarity, path, path) of the videos that are alike, the most alike first."""
    unit = F.normalize(library.features.float(), dim=1)
    rows = [unit[library.video == number] for number in range(len(library.videos))]  # (windows, D) each
    found = []
    for a, b in combinations(range(len(rows)), 2):
        shorter, longer = sorted((len(rows[a]), len(rows[b])))
        if shorter == 0 or longer - shorter > max(1, 0.1 * longer):
            continue
        similarity = (rows[a][:shorter] * rows[b][:shorter]).sum(1).mean().item()
        if similarity >= least:
            found.append((similarity, library.videos[a]["path"], library.videos[b]["path"]))
    return sorted(found, reverse=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("videos", type=Path, help="a folder, of which all videos are compared")
    parser.add_argument("--library", type=Path, default=Path("library"), help="made there, and read again")
    parser.add_argument("--model", default="timesformer_tiny_divided.camera_motion")
    parser.add_argument("--least", type=float, default=0.9, help="similarity, up to 1, of what counts as a copy")
    args = parser.parse_args()
    paths = sorted(path for path in args.videos.rglob("*") if path.suffix.lower() in VIDEO_SUFFIXES)
    for similarity, first, second in pairs(embed(args.model, paths, args.library), args.least):
        print(f"{similarity:.3f}  {first}  {second}")


if __name__ == "__main__":
    main()
