"""Accuracy against what a video costs, from the table "claims" of RESULTS.md, as docs/figures/efficiency.png.

    python benchmarks/draw_claims.py

Accuracies are published ones, multiply-adds are counted, seconds are of the machine that the table names.
"""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from collections.abc import Mapping, Sequence
from pathlib import Path

from claims import COLUMNS, TABLE
from results import RESULTS, read_rows

OUT = Path(__file__).parents[1] / "docs" / "figures" / "efficiency.png"
AXES = {  # column -> what it is called, and where a name stands that would touch another: points to the right and up
    "TFLOPs, counted": (
        "TFLOPs a video (multiply-adds, all views)",
        {
            "TimeSformer base": (-6, 4),
            "TimeSformer hr": (6, -11),
            "TimeSformer l": (-2, 7),
            "Swin3D-B": (-6, 4),
            "VideoMAE base": (-6, 4),
        },
    ),
    "a video, s": (
        "seconds a video (all views, one CPU core)",
        {
            "TimeSformer base": (-6, 4),
            "TimeSformer hr": (-6, -4),
            "Swin3D-B": (-2, -15),
            "Swin3D-T": (-6, 4),
            "VideoMAE base": (-6, 4),
        },
    ),
}
KINDS = {  # by the beginning of the name -> legend, colour, marker
    ("TimeSformer",): ("TimeSformer", "#d62728", "o"),
    ("I3D", "SlowFast", "R3D", "S3D"): ("3D convolutions", "#1f77b4", "s"),
    ("MViT", "Swin", "VideoMAE"): ("later transformers", "#7f7f7f", "^"),
}


def number(cell: str) -> float:
    """The first of a cell, "0.588 (0.528 run)"."""
    return float(cell.split()[0])


def points(rows: Mapping[str, Sequence[str]], column: str) -> dict[str, tuple[float, float]]:
    """Name -> (cost, accuracy), of the rows that were measured."""
    cost, accuracy = COLUMNS.index(column), COLUMNS.index("K400 top-1, %")
    return {name: (number(cells[cost]), number(cells[accuracy])) for name, cells in rows.items() if cells[cost]}


def draw(rows: Mapping[str, Sequence[str]], out: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.ticker import LogLocator, StrMethodFormatter

    figure, axes = plt.subplots(1, 2, figsize=(11, 4.6), sharey=True, layout="constrained")
    for axis, (column, (label, aside)) in zip(axes, AXES.items(), strict=True):
        found = points(rows, column)
        for beginnings, (kind, colour, marker) in KINDS.items():
            chosen = {name: point for name, point in found.items() if name.startswith(beginnings)}
            axis.scatter(
                [x for x, _ in chosen.values()],
                [y for _, y in chosen.values()],
                c=colour,
                marker=marker,
                s=45,
                label=kind,
                zorder=3,
            )
            for name, point in chosen.items():
                x, y = aside.get(name, (6, 4))
                side = "left" if x > 0 else "right"
                axis.annotate(name, point, (x, y), textcoords="offset points", fontsize=8, ha=side, color=colour)
        axis.set_xscale("log")
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axis.minorticks_off()
        axis.margins(x=0.2, y=0.08)
        axis.set_xlabel(label)
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("Kinetics-400 top-1, %, as published")
    axes[0].legend(loc="lower right", fontsize=8)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=110)
    plt.close(figure)


def main(argv: Sequence[str] | None = None) -> None:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args(argv)
    begin, end = f"<!-- begin {TABLE.name} -->", f"<!-- end {TABLE.name} -->"
    rows = read_rows(RESULTS.read_text().partition(begin)[2].partition(end)[0])
    draw(rows, options.out)
    print(options.out, file=sys.stderr)


if __name__ == "__main__":
    main()
