"""What comes of damaged videos: the right frames, what FFmpeg makes of the damage, or one clear error; else a fault.

    python benchmarks/damage.py --count 2000

Small numbered pictures in many containers and codecs are cut, flipped, zeroed, overwritten, shortened and doubled. Of
each such file all frames are read by index, in order, in reverse and alone, in a process of their own. A frame is right
if it is that of the undamaged file or that which FFmpeg shows of the damaged one, decoded from the start; it is
concealed if it is neither, nor any other frame: FFmpeg's mending after a seek. Prints a table and the faults; the exit
status is 1 if there are any.
"""

from __future__ import annotations

import sys
import time
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from damaged import FAULTS, KINDS, VERDICTS, Judge, damaged_files, write_sources


def main(argv: Sequence[str] | None = None) -> int:
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=2000, help="of damaged files (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="another one: other damage (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=2, help="files read at a time (default: %(default)s)")
    parser.add_argument("--keep", metavar="DIR", type=Path, help="keep there the videos, damaged and not")
    args = parser.parse_args(argv)
    start = time.monotonic()
    with nullcontext(args.keep) if args.keep else TemporaryDirectory() as name:
        folder = Path(name)
        folder.mkdir(parents=True, exist_ok=True)
        pairs = list(damaged_files(write_sources(folder), folder, args.count, args.seed))

        def judge_all(share: list[tuple[Path, Path]]) -> list[tuple[str, str, str, str]]:
            with Judge() as judge:
                return [(whole.name, path.name, *judge(whole, path)) for whole, path in share]

        with ThreadPoolExecutor(args.jobs) as pool:
            shares = pool.map(judge_all, [pairs[i :: args.jobs] for i in range(args.jobs)])
            rows = sorted((row for share in shares for row in share), key=lambda row: row[1])
    counts = Counter((kind, verdict) for kind, _, verdict, _ in rows)
    print("| container | files |", " | ".join(VERDICTS), "|")
    print("| --- " * (2 + len(VERDICTS)) + "|")
    for kind in KINDS:
        cells = [counts[kind, verdict] for verdict in VERDICTS]
        print(f"| {kind} | {sum(cells)} |", " | ".join(map(str, cells)), "|")
    cells = [sum(counts[kind, verdict] for kind in KINDS) for verdict in VERDICTS]
    print(f"| all | {sum(cells)} |", " | ".join(map(str, cells)), "|")
    print(f"\n{time.monotonic() - start:.0f} s")
    faults = [row for row in rows if row[2] in FAULTS]
    for _, name, verdict, detail in faults:
        print(f"{name}: {verdict}: {detail}")
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
