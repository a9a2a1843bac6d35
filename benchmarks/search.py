"""A query in a library of a million windows: exact, and by an index; time, recall, size and memory.

    python benchmarks/search.py --threads 1 --write

Features are made, of the width of the embedded model (160) and of base (768): a video has 100 windows around a point of
its own, both in 48 dimensions that a random matrix turns into the width, with some noise, and is stored as float16. A
query is a row with noise. "CPU" is the time that it computes, which others on the machine change less. Recall is the
share of the exact ten that an index has among its ten. Memory is what the process has after 20 queries, Python with
torch and this package (about 400 MiB) included: its own, and pages of files that are mapped, which the system takes
back when it needs them.
"""

from __future__ import annotations

import statistics
import time
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from measuring import _status, in_fresh_process
from results import Table, run

from timesformer_zoo import INDEXES, Library
from timesformer_zoo.retrieval.index import index_file
from timesformer_zoo.retrieval.parts import Manifest, VideoRows, write_manifest, write_part

ROWS, WINDOWS, LATENT, TOPK = 1_000_000, 100, 48, 10
QUERIES = 20
CASES = {f"{index}, {width} wide": (index, width) for width in (160, 768) for index in INDEXES}
COLUMNS = (
    "ms a query",
    "slowest, ms",
    "CPU ms",
    "recall@10",
    "built in, s",
    "index, MB",
    "own memory, MiB",
    "mapped, MiB",
)

_made: dict[tuple[int, int], TemporaryDirectory[str]] = {}


def make(folder: Path, rows: int, width: int) -> None:
    """A library that no video was read for."""
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(LATENT, width, generator=generator) / LATENT**0.5
    names = []
    for first in range(0, rows, 65536 // WINDOWS * WINDOWS):
        videos = []
        for number in range(first // WINDOWS, min(first + 65536 // WINDOWS * WINDOWS, rows) // WINDOWS):
            place = torch.randn(1, LATENT, generator=generator)
            latent = place + 0.6 * torch.randn(WINDOWS, LATENT, generator=generator)
            features = latent @ matrix + 0.2 * torch.randn(WINDOWS, width, generator=generator)
            times = torch.arange(WINDOWS, dtype=torch.float64)[:, None] + torch.tensor([0.0, 1.0], dtype=torch.float64)
            videos.append(VideoRows({"path": f"{number}.mp4", "version": ""}, times, features.half()))
        names.append(write_part(folder, videos, {}))
    write_manifest(folder, Manifest(None, {"width": width, "per": "window"}, {}, names))


def queries(library: Library) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    rows = torch.randint(0, len(library), (QUERIES,), generator=generator).tolist()
    found = [library.parts[p].features[at] for p, at in (_place(library, row) for row in rows)]
    return torch.stack(found).float() + 0.3 * torch.randn(QUERIES, library.width, generator=generator)


def _place(library: Library, row: int) -> tuple[int, int]:
    for number, part in enumerate(library.parts):
        if row < len(part.features):
            return number, row
        row -= len(part.features)
    raise IndexError(row)


def build(folder: str, name: str) -> float:
    """Seconds."""
    library = Library.open(folder)
    start = time.perf_counter()
    library.search(queries(library)[0], TOPK, index=name)
    return time.perf_counter() - start


def ask(folder: str, name: str) -> tuple[list[float], list[float], list[set[int]], int, int]:
    """Seconds of each query, its CPU time, the rows it found; bytes that are the process's own, and of mapped files."""
    library = Library.open(folder)
    asked = queries(library)
    library.search(asked[0], TOPK, index=name)  # maps what is there
    seconds, cpu, rows = [], [], []
    for query in asked:
        start, before = time.perf_counter(), time.process_time()
        found = library.search(query, TOPK, index=name)
        seconds.append(time.perf_counter() - start)
        cpu.append(time.process_time() - before)
        rows.append({match.row for match in found})
    return seconds, cpu, rows, _status("RssAnon"), _status("RssFile")


def measure(case: tuple[str, int], options: Namespace) -> Sequence[str]:
    name, width = case
    count = 4_000 if options.quick else ROWS
    if (count, width) not in _made:
        _made[count, width] = TemporaryDirectory()
        make(Path(_made[count, width].name), count, width)
    folder = _made[count, width].name
    built = [] if name == "exact" else [in_fresh_process(build, folder, name)]
    got = in_fresh_process(ask, folder, name)
    truth = got if name == "exact" else in_fresh_process(ask, folder, "exact")
    assert truth is not None
    assert got is not None
    seconds, cpu, rows, own, mapped = got
    recall = statistics.mean(len(a & b) / TOPK for a, b in zip(rows, truth[2], strict=True))
    times = (statistics.median(seconds), max(seconds), statistics.median(cpu))
    cells = [*(f"{1e3 * value:.1f}" for value in times), f"{recall:.3f}"]
    sizes = [f"{index_file(Library.open(folder), name).stat().st_size / 1e6:.0f}" for _ in built]
    cells += [f"{built[0]:.0f}", *sizes] if built else ["", ""]
    return [*cells, f"{own / 2**20:.0f}", f"{mapped / 2**20:.0f}"]


def estimate(case: tuple[str, int], options: Namespace) -> float:
    name, width = case
    return {"exact": 60.0, "usearch": 300.0, "faiss": 90.0}[name] * (1 + width / 400)


TABLE = Table("search", COLUMNS, CASES, measure, estimate)

if __name__ == "__main__":
    run(__doc__, [TABLE])
