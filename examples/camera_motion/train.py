"""Train the camera-motion checkpoint from scratch: on one GPU in minutes, or, slowly, on a CPU.

The first step starts as a difference between frames (`tiny_model.see_change`), all else at random.

    python examples/camera_motion/fetch_sources.py sources/
    python examples/camera_motion/pack_sources.py sources/ sources.pt
    python examples/camera_motion/train.py sources.pt --out run --device cuda

Clips are made on the device, batch by batch (`clips.py`). It leaves in --out: camera_motion.safetensors (float16, mean
of the weights along the run; also saved while it runs), log.json, state.pt (to go on with the same arguments), and
learning_curve.png. With --max-seconds it ends in time whatever the machine's speed: the learning rate follows the steps
or the clock, whichever is ahead.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path
from typing import Any

import torch
from bank import Bank, load_bank
from camera_paths import CUT, STATIC
from clips import make_batch
from tiny_model import ARGUMENTS, build, save_weights
from torch import Tensor, nn

from timesformer_zoo import AttentionMode, TimeSformer

VAL_SEED = 10**9  # seeds of batches are run * 10^7 + step: none is this one


def optimiser(model: nn.Module, lr: float, weight_decay: float, fused: bool) -> torch.optim.AdamW:
    """AdamW; no decay for biases, norms and embeddings."""
    decay = [p for n, p in model.named_parameters() if p.ndim > 1 and n not in ("pos_embed", "time_embed", "cls_token")]
    rest = [p for p in model.parameters() if not any(p is q for q in decay)]
    groups = [{"params": decay, "weight_decay": weight_decay}, {"params": rest, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.98), fused=fused)


def rate(done: float, warmup: float) -> float:
    """Share of the learning rate when a share of the run is done: linear warm-up, then a cosine to zero."""
    if done < warmup:
        return done / warmup + 1e-3
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (done - warmup) / (1 - warmup))))


def loss_of(logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Cross-entropy with soft targets (B, K), mean over the clips that have weight."""
    losses = -(targets * logits.float().log_softmax(1)).sum(1)
    return (losses * weights).sum() / weights.sum().clamp(min=1)


@torch.inference_mode()
def validate(model: nn.Module, bank: Bank, args: argparse.Namespace) -> dict[str, float]:
    """Accuracy on fixed clips at full difficulty that training has not seen, of its sources."""
    right = {"static": [], "moving": [], "cut": []}
    model.eval()
    for i in range(args.val_batches):
        batch = make_batch(bank, args.batch_size, VAL_SEED + i, args.model["img_size"])
        with autocast(args):
            found = model(batch.clips).argmax(1) == batch.hard
        kept = batch.weights > 0
        moving = (batch.hard > STATIC) & (batch.hard < CUT)
        for name, chosen in {"static": batch.hard == STATIC, "moving": moving, "cut": batch.hard == CUT}.items():
            right[name].append(found[chosen & kept])
    return {name: float(torch.cat(parts).float().mean()) for name, parts in right.items()}


def autocast(args: argparse.Namespace) -> torch.autocast:
    return torch.autocast(torch.device(args.device).type, torch.bfloat16, enabled=args.bf16)


def recipe(args: argparse.Namespace) -> dict[str, Any]:
    """What decides the weights: every argument but where things are and how they are run."""
    apart = {
        "sources",
        "out",
        "device",
        "threads",
        "every",
        "seconds_between_saves",
        "val_batches",
        "compile",
        "most",
        "attention",
    }
    return {key: value for key, value in vars(args).items() if key not in apart}


class Run:
    """A model in training with its optimiser, the mean of its weights, and how far it is."""

    def __init__(self, model: TimeSformer, args: argparse.Namespace) -> None:
        self.args = args
        self.model = model.to(args.device).train()
        fused = args.attention == "fused" and torch.device(args.device).type == "cuda"
        for step in model.attention_steps():
            step.fused_attn = fused
        self.optimiser = optimiser(model, args.lr, args.weight_decay, fused=torch.device(args.device).type == "cuda")
        self.mean = build(args.mode, args.model, args.seed).to(args.device).eval()
        self.mean.load_state_dict(model.state_dict())
        self.step, self.seconds = 0, 0.0
        self.log: list[dict[str, float]] = []
        self.forward: Any = model
        if args.compile:
            import torch._inductor.config as inductor

            if hasattr(inductor.triton, "coalesce_tiling_analysis"):
                inductor.triton.coalesce_tiling_analysis = False  # it fails on this model in torch 2.11
            self.forward = torch.compile(model)

    def update(self, clips: Tensor, targets: Tensor, weights: Tensor, lr: float) -> Tensor:
        """One step; returns the loss. A step whose gradients are not finite changes nothing."""
        for group in self.optimiser.param_groups:
            group["lr"] = lr
        with autocast(self.args):
            loss = loss_of(self.forward(clips), targets, weights)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        if nn.utils.clip_grad_norm_(self.model.parameters(), 1.0).isfinite():
            self.optimiser.step()
        keep = min(self.args.mean, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            torch._foreach_lerp_(list(self.mean.parameters()), list(self.model.parameters()), 1 - keep)
        self.step += 1
        return loss.detach()

    def save(self) -> None:
        out = self.args.out
        about = {"recipe": recipe(self.args), "result": self.log[-1] if self.log else {}}
        save_weights(self.mean, out / "camera_motion.safetensors", about)
        state = {"recipe": recipe(self.args), "step": self.step, "seconds": self.seconds, "log": self.log}
        state |= {
            "model": self.model.state_dict(),
            "mean": self.mean.state_dict(),
            "optimiser": self.optimiser.state_dict(),
        }
        torch.save(state, out / "state.pt.part")
        (out / "state.pt.part").replace(out / "state.pt")
        (out / "log.json").write_text(json.dumps(self.log, indent=1))

    def resume(self) -> None:
        """Go on from out/state.pt, if there is one."""
        path = self.args.out / "state.pt"
        if not path.exists():
            return
        state = torch.load(path, map_location=self.args.device, weights_only=True)
        if state["recipe"] != recipe(self.args):
            raise ValueError(
                f"{path.parent} holds a run with {state['recipe']}, not {recipe(self.args)}: use another --out"
            )
        self.model.load_state_dict(state["model"])
        self.mean.load_state_dict(state["mean"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.step, self.seconds, self.log = state["step"], state["seconds"], state["log"]


def train(bank: Bank, args: argparse.Namespace) -> Run:
    """Train until --steps or --max-seconds, whichever comes first."""
    args.out.mkdir(parents=True, exist_ok=True)
    run = Run(build(args.mode, args.model, args.seed), args)
    run.resume()
    started = time.monotonic() - run.seconds
    saved, losses = time.monotonic(), []
    done = max(run.step / args.steps, run.seconds / args.max_seconds)
    while run.step < args.steps and done < 1:
        strength = min(1.0, 0.1 + done / args.curriculum) if args.curriculum else 1.0
        batch = make_batch(bank, args.batch_size, args.seed * 10**7 + run.step, args.model["img_size"], strength)
        losses.append(run.update(batch.clips, batch.targets, batch.weights, args.lr * rate(done, args.warmup)))
        run.seconds = time.monotonic() - started
        done = max(run.step / args.steps, run.seconds / args.max_seconds)
        if run.step % args.every == 0 or run.step == args.steps or done >= 1:
            entry = {"step": run.step, "seconds": round(run.seconds, 1), "loss": float(torch.stack(losses).mean())}
            run.log.append(entry | validate(run.mean, bank, args))
            losses = []
            print(json.dumps({k: round(v, 4) for k, v in run.log[-1].items()}), flush=True)
        if time.monotonic() - saved > args.seconds_between_saves:
            run.save()
            saved = time.monotonic()
    run.save()
    return run


def draw_curve(log: list[dict[str, float]], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 3.5), layout="constrained")
    for key in ("loss", "static", "moving", "cut"):
        axes.plot(
            [e["step"] for e in log], [e[key] for e in log], label="loss" if key == "loss" else f"accuracy, {key}"
        )
    axes.set_xlabel("step")
    axes.legend()
    figure.savefig(path, dpi=150)
    plt.close(figure)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", type=Path, help="the file that pack_sources.py wrote")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=2458)
    parser.add_argument("--max-seconds", type=float, default=math.inf, help="of training; startup comes on top")
    parser.add_argument("--batch-size", type=int, default=512)
    parser.add_argument("--lr", type=float, default=1.5e-3)
    parser.add_argument("--weight-decay", type=float, default=0.05)
    parser.add_argument("--warmup", type=float, default=0.04, help="share of the run with a rising learning rate")
    parser.add_argument(
        "--curriculum", type=float, default=0.15, help="share of the run until clips are at their hardest"
    )
    parser.add_argument("--mean", type=float, default=0.998, help="decay of the mean of the weights")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--mode", default="divided", choices=[mode.value for mode in AttentionMode])
    parser.add_argument("--model", type=json.loads, default={}, help='arguments that differ, as JSON: {"depth": 4}')
    parser.add_argument("--bf16", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--attention", default="plain", choices=["plain", "fused"], help="how it is computed on a GPU")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--every", type=int, default=200, help="steps between validations")
    parser.add_argument("--val-batches", type=int, default=2)
    parser.add_argument("--seconds-between-saves", type=float, default=60)
    parser.add_argument("--most", type=int, help="so many of the pictures and of the textures, for a trial")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args(arguments)
    args.model = ARGUMENTS | args.model
    return args


def main(arguments: list[str] | None = None) -> None:
    args = parse(arguments)
    torch.set_num_threads(args.threads)
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.allow_tf32 = True
    started = time.monotonic()
    bank = load_bank(args.sources, args.device, args.most)
    print(
        f"{bank.tiles.shape[1]} tiles, {bank.frames.shape[1]} frames in {time.monotonic() - started:.1f} s", flush=True
    )
    run = train(bank, args)
    if bank.device.type == "cuda":
        print(f"{torch.cuda.max_memory_allocated() / 2**30:.1f} GiB of GPU memory at most")
    print(f"{run.step} steps in {run.seconds:.0f} s, {run.seconds / max(1, run.step):.3f} s a step")
    draw_curve(run.log, args.out / "learning_curve.png")


if __name__ == "__main__":
    main()
