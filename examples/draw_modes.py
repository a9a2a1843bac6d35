"""Draw what each attention mode attends to, from the steps that the model itself takes.

    python examples/draw_modes.py          # writes examples/figures/attention_modes.png

After figure 2 of the paper (arXiv 2102.05095): the query patch, and the patches that each step lets it see.
"""

from pathlib import Path

import matplotlib
import torch

from timesformer_zoo import AttentionMode, Step

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.patches import Patch

FRAMES, ROWS, COLUMNS = GRID = (3, 6, 8)
QUERY = (1, 2, 3)
COLOURS = ("#e8693f", "#3f9e63", "#8a5fc2")  # first, second, third step
OUT = Path(__file__).parent / "figures" / "attention_modes.png"


def seen(step: Step, query: int) -> list[int]:
    """Flat indices of the patches in the query's group."""
    index = torch.arange(FRAMES * ROWS * COLUMNS).view(1, *GRID, 1)
    for cell in step.cells(GRID):
        groups = step.groups(index, cell).flatten(0, -3).squeeze(-1)  # groups, patches
        for group in groups.tolist():
            if query in group:
                return group
    raise AssertionError("every patch is in one group")


def main() -> None:
    query = (QUERY[0] * ROWS + QUERY[1]) * COLUMNS + QUERY[2]
    figure, axes = plt.subplots(FRAMES, len(AttentionMode), figsize=(11, 4.6), squeeze=False)
    for column, mode in enumerate(AttentionMode):
        colours = torch.full((FRAMES * ROWS * COLUMNS, 3), 0.92)
        for step, colour in reversed(list(zip(mode.steps, COLOURS, strict=False))):
            colours[seen(step, query)] = torch.tensor(matplotlib.colors.to_rgb(colour))
        colours[query] = torch.tensor(matplotlib.colors.to_rgb("#2d6cc0"))
        for frame, axis in enumerate(axes[:, column]):
            axis.imshow(colours.view(*GRID, 3)[frame].numpy(), interpolation="nearest")
            axis.set_xticks([x - 0.5 for x in range(COLUMNS + 1)], [])
            axis.set_yticks([y - 0.5 for y in range(ROWS + 1)], [])
            axis.grid(color="white", linewidth=1.5)
            axis.tick_params(length=0)
            axis.spines[:].set_visible(False)
            if column == 0:
                axis.set_ylabel(f"frame t{frame - QUERY[0]:+d}" if frame != QUERY[0] else "frame t", fontsize=9)
        axes[0, column].set_title(mode.value, fontsize=11, family="monospace")
        handles = [Patch(color=c, label=s.name) for s, c in zip(mode.steps, COLOURS, strict=False)]
        axes[-1, column].legend(handles=handles, ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.02), fontsize=8,
                                frameon=False, handlelength=1, columnspacing=1)  # fmt: skip
    figure.tight_layout()
    OUT.parent.mkdir(exist_ok=True)
    figure.savefig(OUT, dpi=110)
    print(OUT)


if __name__ == "__main__":
    main()
