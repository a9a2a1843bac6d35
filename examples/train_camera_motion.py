"""Train a tiny TimeSformer to tell what the camera does, from scratch, on two cores.

    python examples/fetch_camera_motion_sources.py sources/
    python examples/train_camera_motion.py sources/ --out runs/divided --mode divided

Started again with the same arguments it goes on where it stopped, and ends with the same weights as a run that was
never stopped. It leaves in --out: state.pt (to resume), log.json, learning_curve.png, result.json with the accuracy on
held-out sources, confusion.png, and timesformer_tiny_<mode>.camera_motion.safetensors (float16, labels and recipe in
its metadata).
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import timm
import torch
from camera_motion import LABELS, CameraMotion, Source, load_sources
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader
from tqdm import tqdm

import timesformer_zoo  # registers the models
from timesformer_zoo import TimeSformer

# How much of what a run sees comes from where; the rest are pictures.
PROCEDURAL, FOOTAGE = 0.4, 0.3
TEST_SEED, VAL_SEED = 2_000, 1_000


def build(mode: str, overrides: dict[str, Any], seed: int) -> TimeSformer:
    """The tiny model of a mode, initialised for training from scratch.

    The paper starts `time_embed` and every `fc` at zero, to begin as the image model whose weights it loads, and draws
    matrices with a standard deviation of 0.02, which suits a width of 768. Here there is no image model to begin as:
    matrices scale with the width, `fc` is drawn like the others, and `see_change` lets the model see motion.
    """
    torch.manual_seed(seed)
    model = timm.create_model(f"timesformer_tiny_{mode}", num_classes=len(LABELS), **overrides)
    assert isinstance(model, TimeSformer)  # for the type checker
    for name, parameter in model.named_parameters():
        if name.startswith("blocks.") and parameter.ndim == 2:
            nn.init.trunc_normal_(parameter, std=0.8 / math.sqrt(model.embed_dim))
    for step in model.attention_steps():
        step.fused_attn = False  # for groups of 8 and 17 tokens on a CPU, plain attention is twice as fast
    see_change(model)
    return model


# Frequencies of each axis's code. With n of them, at odd multiples of pi / 2n, different places have orthogonal codes.
CODES = {"t": 8, "h": 4, "w": 4}
HEADS = (1, -1, 2, -2)  # frames ahead of the query that the heads look at
SHARPNESS, STRENGTH = 1.2, 3.0


@torch.no_grad()
def see_change(model: TimeSformer) -> None:
    """Let the first attention step, if it looks along time, start as a derivative in time.

    Drawn at random, attention is all but uniform and hardly anything depends on the order of frames: a model soon tells
    a pan from a zoom but not left from right, for thousands of steps. So the last channels of the embeddings start as
    codes of the frame, row and column; the heads of the first step look at the same patch 1 or 2 frames later or
    earlier, and those of a pair have the same values with opposite signs. What the step adds to a patch is then how it
    changes, and the MLP after it has change beside content, of which motion is made. All this is a start: every weight
    is trained.
    """
    width, heads = model.embed_dim, model.num_heads
    size = width // heads
    step = next(model.attention_steps())
    if model.time_embed is None or "t" not in step.step.axes or heads % len(HEADS) or size < 2 * sum(CODES.values()):
        return
    channel = width - 2 * sum(CODES.values())
    model.patch_embed.proj.weight[channel:] = 0
    model.patch_embed.proj.bias[channel:] = 0
    model.pos_embed[..., channel:] = 0
    model.time_embed.zero_()
    _, rows, columns = model.grid_size
    positions = model.pos_embed[0, 1:].view(rows, columns, width)
    targets = {"t": model.time_embed[0], "h": positions.transpose(0, 1), "w": positions}  # (..., places, width)
    queries, keys, values = step.qkv.weight.view(3, heads, size, width)
    queries *= 0.1
    keys *= 0.1
    row = 0
    for axis, count in CODES.items():
        rates = math.pi * (torch.arange(count) + 0.5) / count
        code = torch.arange(targets[axis].shape[-2])[:, None] * rates
        sines, cosines = slice(channel, channel + count), slice(channel + count, channel + 2 * count)
        targets[axis][..., sines] = code.sin()
        targets[axis][..., cosines] = code.cos()
        if axis in step.step.axes:
            first, second = slice(row, row + count), slice(row + count, row + 2 * count)
            unit = torch.eye(count) * SHARPNESS
            for head in range(heads):  # a query's code, turned by the offset, is the code of the key it looks for
                turn = rates * (HEADS[head % len(HEADS)] if axis == "t" else 0)
                queries[head, first, sines], queries[head, first, cosines] = unit * turn.cos(), unit * turn.sin()
                queries[head, second, sines], queries[head, second, cosines] = -unit * turn.sin(), unit * turn.cos()
                keys[head, first, sines] += unit
                keys[head, second, cosines] += unit
        channel, row = channel + 2 * count, row + 2 * count
    outputs = step.proj.weight.view(width, heads, size)
    values[1::2] = values[0::2]
    outputs[:, 1::2] = -outputs[:, 0::2]
    outputs *= STRENGTH


def optimiser(model: nn.Module, lr: float, weight_decay: float) -> torch.optim.AdamW:
    """AdamW; no decay for biases, norms and embeddings."""
    decay = [p for n, p in model.named_parameters() if p.ndim > 1 and n not in ("pos_embed", "time_embed")]
    rest = [p for p in model.parameters() if not any(p is q for q in decay)]
    groups = [{"params": decay, "weight_decay": weight_decay}, {"params": rest, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.98))


def rate(step: int, steps: int, warmup: int) -> float:
    """Share of the learning rate at a step: linear warm-up, then a cosine to zero."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def atomically(path: Path, write: Callable[[Path], Any]) -> None:
    """Write beside the target and rename, so that a killed run never leaves half a file."""
    beside = path.with_name(path.name + ".part")
    write(beside)
    os.replace(beside, path)


def batches(data: CameraMotion, first: int, workers: int) -> Iterator[tuple[Tensor, Tensor, int]]:
    """Batches `first` and after, made ahead of time by `workers` processes."""
    order = range(first, len(data))
    yield from DataLoader(
        data, batch_size=None, sampler=order, num_workers=workers, prefetch_factor=4 if workers else None
    )


@torch.inference_mode()
def evaluate(model: nn.Module, data: CameraMotion, device: str) -> tuple[Tensor, float]:
    """(confusion (true, predicted) counts, share of candidates left out)."""
    model.eval()
    counts = torch.zeros(len(LABELS), len(LABELS), dtype=torch.long)
    left_out = shown = 0
    for clips, labels, dropped in batches(data, 0, 0):
        predicted = model(clips.to(device)).argmax(1).cpu()
        counts.index_put_((labels, predicted), torch.ones_like(labels), accumulate=True)
        left_out, shown = left_out + dropped, shown + len(labels)
    model.train()
    return counts, left_out / (left_out + shown)


def accuracy(counts: Tensor) -> float:
    return float(counts.diagonal().sum() / counts.sum())


def train(
    model: nn.Module, sources: list[Source], held_out: list[Source], out: Path, args: argparse.Namespace
) -> list[dict[str, float]]:
    """Train from where `out/state.pt` stands (or the start) to args.steps; returns the log."""
    out.mkdir(parents=True, exist_ok=True)
    model.to(args.device).train()
    optimizer = optimiser(model, args.lr, args.weight_decay)
    data = CameraMotion(sources, args.batch_size, args.steps, args.seed, True, PROCEDURAL, FOOTAGE, args.curriculum)
    val = CameraMotion(held_out, 64, args.val_batches, VAL_SEED, augment=False)
    first, log = 0, []
    if (out / "state.pt").exists():
        state = torch.load(out / "state.pt", map_location=args.device, weights_only=True)
        if state["recipe"] != recipe(args):
            raise ValueError(f"{out} holds a run with {state['recipe']}, asked is {recipe(args)}: use another --out")
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        first, log = state["step"], state["log"]
    bar = tqdm(batches(data, first, args.workers), total=args.steps, initial=first, disable=None, unit="step")
    losses, started = [], time.monotonic()
    for step, (clips, labels, _) in enumerate(bar, first):
        for group in optimizer.param_groups:
            group["lr"] = args.lr * rate(step, args.steps, args.warmup)
        with torch.autocast(torch.device(args.device).type, torch.bfloat16, enabled=args.bf16):
            loss = F.cross_entropy(model(clips.to(args.device)).float(), labels.to(args.device), label_smoothing=0.02)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
        if (step + 1) % args.every == 0 or step + 1 == args.steps:
            entry = {
                "step": step + 1,
                "loss": sum(losses) / len(losses),
                "val": accuracy(evaluate(model, val, args.device)[0]),
            }
            log.append(entry)
            seconds = (time.monotonic() - started) / len(losses)
            tqdm.write(f"step {step + 1}: loss {entry['loss']:.3f}, val {entry['val']:.3f}, {seconds:.2f} s a step")
            state = {"recipe": recipe(args), "model": model.state_dict(), "optimizer": optimizer.state_dict()}
            state |= {"step": step + 1, "log": log}
            atomically(out / "state.pt", lambda path, state=state: torch.save(state, path))
            atomically(out / "log.json", lambda path: path.write_text(json.dumps(log)))
            losses, started = [], time.monotonic()
    return log


def recipe(args: argparse.Namespace) -> dict[str, Any]:
    """What decides the weights: every argument but where things are and how fast they run."""
    return {
        k: v
        for k, v in vars(args).items()
        if k not in {"sources", "out", "device", "threads", "workers", "test_batches"}
    }


def draw(log: list[dict[str, float]], counts: dict[str, Tensor], out: Path) -> None:
    """learning_curve.png and confusion.png."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 3.5), layout="constrained")
    axes.plot([e["step"] for e in log], [e["loss"] for e in log], label="training loss")
    axes.plot([e["step"] for e in log], [e["val"] for e in log], label="validation accuracy")
    axes.set_xlabel("step")
    axes.legend()
    figure.savefig(out / "learning_curve.png", dpi=150)
    figure, panels = plt.subplots(1, len(counts), figsize=(5.5 * len(counts), 5.2), layout="constrained", squeeze=False)
    for axes, (part, matrix) in zip(panels[0], counts.items(), strict=True):
        axes.imshow(matrix / matrix.sum(1, keepdim=True), cmap="Blues", vmin=0, vmax=1)
        axes.set_xticks(range(len(LABELS)), LABELS, rotation=60, ha="right")
        axes.set_yticks(range(len(LABELS)), LABELS)
        axes.set_title(f"{part}: {accuracy(matrix):.1%}")
        axes.set_xlabel("predicted")
        for i, row in enumerate(matrix.tolist()):
            for j, n in enumerate(row):
                if n:
                    axes.text(
                        j,
                        i,
                        str(n),
                        ha="center",
                        va="center",
                        fontsize=7,
                        color="white" if n > sum(row) / 2 else "black",
                    )
    figure.savefig(out / "confusion.png", dpi=150)
    plt.close("all")


def export(model: nn.Module, path: Path, result: dict[str, Any], args: argparse.Namespace) -> None:
    """Float16 weights, with labels, recipe and result as JSON in the metadata."""
    tensors = {name: tensor.to("cpu", torch.float16).contiguous() for name, tensor in model.state_dict().items()}
    metadata = {"labels": json.dumps(LABELS), "recipe": json.dumps(recipe(args)), "result": json.dumps(result)}
    atomically(path, lambda beside: save_file(tensors, beside, metadata))


def test(
    model: nn.Module, sources: str, out: Path, args: argparse.Namespace
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Accuracy on the held-out pictures and footage: a fixed set, drawn with TEST_SEED."""
    held_out = load_sources(sources, "test")
    parts = {"pictures": [s for s in held_out if not s.is_video], "footage": [s for s in held_out if s.is_video]}
    result: dict[str, Any] = {"mode": args.mode, "steps": args.steps}
    counts = {}
    for part, chosen in parts.items():
        if chosen:
            data = CameraMotion(chosen, 63, args.test_batches, TEST_SEED, augment=False)
            counts[part], left_out = evaluate(model, data, args.device)
            result[part] = {"accuracy": accuracy(counts[part]), "clips": int(counts[part].sum()), "left_out": left_out}
    total = sum(counts.values(), torch.zeros(len(LABELS), len(LABELS), dtype=torch.long))
    counts["all"] = total
    moving = total[1:, 1:]
    result |= {"accuracy": accuracy(total), "direction": float(moving.diagonal().sum() / total[1:].sum())}
    result["parameters"] = sum(p.numel() for p in model.parameters())
    for label, row in zip(LABELS, total.tolist(), strict=True):
        print(f"{label:>22} " + " ".join(f"{n:4}" for n in row))
    print(json.dumps(result))
    return result, counts


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", help="folder of pictures and videos, see fetch_camera_motion_sources.py")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--mode", default="divided", choices=[mode.value for mode in timesformer_zoo.AttentionMode])
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--weight-decay", type=float, default=0.05)
    parser.add_argument("--warmup", type=int, default=150, help="steps of rising learning rate")
    parser.add_argument(
        "--curriculum", type=int, default=800, help="steps until speeds and disturbances have their full range"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--every", type=int, default=100, help="steps between validations and saved states")
    parser.add_argument("--val-batches", type=int, default=4)
    parser.add_argument("--test-batches", type=int, default=30, help="of 63 clips, for each part of the test")
    parser.add_argument(
        "--model", type=json.loads, default={}, help='arguments of the model, as JSON: {"embed_dim": 192}'
    )
    parser.add_argument(
        "--bf16", action=argparse.BooleanOptionalAction, default=True, help="compute in bfloat16 where it helps"
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--workers", type=int, default=1, help="processes that make clips")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    args = parse(arguments)
    torch.set_num_threads(args.threads)
    model = build(args.mode, args.model, args.seed)
    log = train(model, load_sources(args.sources, "train"), load_sources(args.sources, "val"), args.out, args)
    result, counts = test(model, args.sources, args.out, args)
    atomically(args.out / "result.json", lambda path: path.write_text(json.dumps(result, indent=1)))
    export(model, args.out / f"timesformer_tiny_{args.mode}.camera_motion.safetensors", result, args)
    draw(log, counts, args.out)


if __name__ == "__main__":
    main()
