"""How a run is steered: what it trains, when it ends, which weights it leaves, and where it goes on."""

import json
import shutil
from dataclasses import replace
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.tracking import GeneralTracker
from footage import films_by_class, video_list
from ranks import join, launch
from safetensors.torch import load_file
from torch.nn import functional as F

from timesformer_zoo import (
    MissingVideosError,
    Recipe,
    StepSampler,
    TimeSformer,
    VideoDataset,
    VideoList,
    VideoReadError,
    evaluate,
    find_lr,
    finetune,
    normalize_clips,
    plan,
    read_videos,
)
from timesformer_zoo.data.order import Draw

Output = pytest.CaptureFixture[str]
PLAIN = Recipe(epochs=3, batch_size=4, lr=0.02, drop_path=0.0)


def small(**options: Any) -> TimeSformer:
    torch.manual_seed(0)
    sizes: dict[str, Any] = dict(img_size=32, num_frames=4, num_classes=3, embed_dim=32, depth=2, num_heads=2)
    return TimeSformer(clip=dict(stride=2, fps=None, crops=1), **{**sizes, **options})


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return films_by_class(tmp_path_factory.mktemp("films"), 4)


@pytest.fixture(scope="module")
def videos(films: Path) -> VideoList:
    return read_videos("folder", films)


@pytest.fixture(scope="module")
def val(films: Path) -> VideoList:
    return read_videos("folder", films, "val")


def changed(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> set[str]:
    return {name for name, value in before.items() if not torch.equal(value, after[name])}


# ---- what is trained ----


@pytest.mark.parametrize(
    ("layers", "moves"),
    [
        ("none", "cls_token patch_embed blocks.0 blocks.1 norm head"),
        ("embed", "blocks.0 blocks.1 norm head"),
        (1, "blocks.1 norm head"),
        ("backbone", "head"),
    ],
)
def test_frozen_layers_stay_as_they_are(layers: str | int, moves: str, videos: VideoList, tmp_path: Path) -> None:
    # Weight decay would move them without a gradient, and drop path would make their outputs noise.
    recipe = replace(PLAIN, epochs=1, freeze=layers, weight_decay=0.1, optimizer="adamw", lr=1e-3)
    model = small(drop_path_rate=0.5)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    seen: dict[str, set[bool]] = {}
    for name, module in model.named_modules():
        module.register_forward_pre_hook(lambda m, _, n=name: seen.setdefault(n, set()).add(m.training))
    done = finetune(model, videos, recipe, tmp_path, progress=False)
    parts = changed(before, done.model.state_dict())
    names = ["cls_token", "patch_embed", "blocks.0", "blocks.1", "norm", "head"]
    assert {part for part in names if any(n.split(".")[0] == part or n.startswith(f"{part}.") for n in parts)} == set(
        moves.split()
    )
    assert seen["head"] == {True}
    assert seen["blocks.0"] == {"blocks.0" in moves}
    assert all(parameter.requires_grad for parameter in done.model.parameters())


def test_layers_frozen_by_hand_stay_so_and_those_of_a_recipe_do_not(videos: VideoList, tmp_path: Path) -> None:
    model = small()
    model.patch_embed.requires_grad_(False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    recipe = replace(PLAIN, epochs=1, freeze="backbone", weight_decay=0.1)
    done = finetune(model, videos, recipe, tmp_path / "a", progress=False)
    assert {name.split(".")[0] for name in changed(before, done.model.state_dict())} == {"head"}
    done = finetune(model, videos, replace(recipe, freeze="none"), tmp_path / "b", progress=False)
    moved = {name.split(".")[0] for name in changed(before, done.model.state_dict())}
    assert "patch_embed" not in moved
    assert {"blocks", "norm", "head"} <= moved
    with pytest.raises(ValueError, match="Use the same to go on"):
        finetune(model, videos, recipe, tmp_path / "b", progress=False)
    assert model.norm.weight.requires_grad


def test_more_frozen_blocks_than_there_are(videos: VideoList, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"freeze is 3; expected at most the model's 2 blocks"):
        finetune(small(), videos, replace(PLAIN, freeze="3"), tmp_path)


def unequal(videos: VideoList) -> VideoList:
    """6 of class 0, 2 of class 1, 1 of class 2."""
    paths = [Path(sample.path) for sample in videos.samples]
    return video_list(paths, [0, 0, 0, 0, 0, 0, 1, 1, 2], classes=4)


def test_class_weights_are_in_the_loss_and_keep_its_scale(videos: VideoList, tmp_path: Path) -> None:
    few = unequal(videos)
    balanced = torch.tensor([9 / (3 * 6), 9 / (3 * 2), 9 / (3 * 1), 1.0])  # scikit-learn's; nothing of class 3
    targets = torch.tensor([sample.target for sample in few.samples])
    assert balanced[targets].mean() == 1
    settings: dict[str, Any] = dict(epochs=1, batch_size=9, lr=0.1, momentum=0.0, weight_decay=0.0, accumulation=3)
    recipe = replace(PLAIN, class_weights="balanced", **settings)
    done = finetune(small(num_classes=4), few, recipe, tmp_path / "a", progress=False)
    by_hand = small(num_classes=4)
    data = VideoDataset(few, by_hand, training=True)
    items = [data[Draw(i, 0)] for i in range(9)]
    clips = torch.cat([item.clips for item in items if item.clips is not None])
    logits = by_hand(normalize_clips(clips, by_hand))
    (F.cross_entropy(logits, targets, reduction="none") * balanced[targets]).mean().backward()
    for name, parameter in by_hand.named_parameters():
        assert parameter.grad is not None
        expected = parameter - 0.1 * parameter.grad
        torch.testing.assert_close(done.model.state_dict()[name], expected.detach(), rtol=1e-5, atol=1e-5)
    # The same as numbers; and what is no number for each class.
    numbers = replace(recipe, class_weights=tuple(balanced.tolist()))
    again = finetune(small(num_classes=4), few, numbers, tmp_path / "b", progress=False)
    assert not changed(done.model.state_dict(), again.model.state_dict())
    with pytest.raises(ValueError, match="class_weights has 2 numbers; expected one for each of 4 classes"):
        finetune(small(num_classes=4), few, replace(PLAIN, class_weights=(1.0, 2.0)), tmp_path / "c")


def draws(targets: list[int], world: int, start: int = 0, accumulation: int = 1) -> list[list[Draw]]:
    """Of each step from `start` to that of two epochs' end, over all ranks."""
    size, steps = len(targets), 2 * -(-len(targets) // 4)
    options: dict[str, Any] = dict(stop=steps, start=start, seed=3, world=world, accumulation=accumulation)
    ranks = [list(StepSampler(size, 4, rank=rank, balance=targets, **options)) for rank in range(world)]
    parts = [list(chain(*part)) for part in zip(*ranks, strict=True)]
    return [sorted(chain(*parts[i : i + accumulation])) for i in range(0, len(parts), accumulation)]


def test_balanced_sampling_draws_each_class_equally_often() -> None:
    targets = [0] * 20 + [1] * 6 + [2] * 1 + [5] * 3
    steps = draws(targets, world=1)
    for epoch in range(2):
        seen = [draw for step in steps for draw in step if draw.epoch == epoch]
        assert len(seen) == len(set(seen)) == len(targets)  # a video twice is two clips: another turn
        counts = [sum(targets[draw.sample] == target for draw in seen) for target in (0, 1, 2, 5)]
        assert sorted(counts) == [7, 7, 8, 8]
        for target in (1, 5):  # every video once before any comes again
            turns = [sum(draw.sample == i for draw in seen) for i, t in enumerate(targets) if t == target]
            assert max(turns) - min(turns) <= 1
    assert steps[:8] != steps[8:]
    # The same for any number of ranks and micro-batches, and from the middle of an epoch.
    assert draws(targets, world=3, accumulation=2) == steps
    assert draws(targets, world=2, start=5) == steps[5:]


def test_balanced_sampling_needs_all_videos_at_hand(videos: VideoList, tmp_path: Path) -> None:
    shards = replace(videos, window=4)
    with pytest.raises(ValueError, match=r"Recipe.balanced_sampling .* in windows of 4: leave it out, or read_shards"):
        plan(small(), shards, replace(PLAIN, balanced_sampling=True), tmp_path)


def test_turns_of_a_video_are_different_clips(videos: VideoList) -> None:
    data = VideoDataset(videos, small(), training=True)
    clips = [data[draw].clips for draw in (Draw(0, 0), Draw(0, 0, 1), Draw(0, 0, 1), Draw(0, 1))]
    assert all(clip is not None for clip in clips)
    assert not torch.equal(clips[0], clips[1])  # type: ignore[arg-type]
    assert torch.equal(clips[1], clips[2])  # type: ignore[arg-type]
    assert not torch.equal(clips[1], clips[3])  # type: ignore[arg-type]


def test_a_balanced_run_goes_on_as_it_would_have(videos: VideoList, tmp_path: Path) -> None:
    few = unequal(videos)
    recipe = replace(PLAIN, epochs=2, balanced_sampling=True)
    whole = finetune(small(num_classes=4), few, recipe, tmp_path / "a", progress=False)

    def stop(entry: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        finetune(small(num_classes=4), few, recipe, tmp_path / "b", progress=False, on_epoch=stop)
    broken = finetune(small(num_classes=4), few, recipe, tmp_path / "b", progress=False)
    assert not changed(whole.model.state_dict(), broken.model.state_dict())


# ---- which weights are the result, and when it ends ----


def observed(model: TimeSformer) -> list[TimeSformer]:
    """The model that a run trains, a copy of the given one, once it has been called."""
    seen: list[TimeSformer] = []
    model.register_forward_pre_hook(lambda copy, _: seen.append(copy) if copy not in seen else None)
    return seen


def test_the_best_epoch_is_the_result_also_after_a_restart(videos: VideoList, val: VideoList, tmp_path: Path) -> None:
    weights: dict[int, dict[str, torch.Tensor]] = {}
    model = small()
    trained = observed(model)
    recipe = replace(PLAIN, epochs=5, best="loss")

    def spoil(entry: dict[str, Any]) -> None:
        weights[entry["epoch"]] = {name: value.clone() for name, value in trained[0].state_dict().items()}
        if entry["epoch"] >= 2:
            with torch.no_grad():
                trained[0].head.weight.mul_(-3)

    done = finetune(model, videos, recipe, tmp_path, val=val, progress=False, on_epoch=spoil)
    assert not changed(small().state_dict(), model.state_dict())  # the given one, which a rerun starts from again
    losses = [entry["loss"] for entry in done.history]
    best = min(range(5), key=lambda i: losses[i]) + 1
    assert best == 2
    assert done.best is not None
    assert (done.best["epoch"], done.best["metric"], done.best["value"]) == (best, "loss", losses[best - 1])
    assert not changed(weights[best], done.model.state_dict())
    kept = [path.name for path in (tmp_path / "checkpoints").glob("*best*")]
    assert kept == [f"best-{3 * best:08d}.safetensors"]
    # A restart of the finished run has it again, and so has an extended one that finds nothing better.
    again = finetune(small(), videos, recipe, tmp_path, val=val, progress=False)
    assert not changed(weights[best], again.model.state_dict())
    longer = replace(recipe, epochs=6, patience=4)
    assert not changed(
        weights[best], finetune(small(), videos, longer, tmp_path, val=val, progress=False).model.state_dict()
    )
    # By another metric, or the last: what there is.
    last = finetune(small(), videos, replace(recipe, epochs=6, best="last"), tmp_path, val=val, progress=False)
    assert last.best is None
    assert changed(weights[best], last.model.state_dict())
    other = finetune(small(), videos, replace(recipe, epochs=6, best="top1"), tmp_path, val=val, progress=False)
    assert other.best is not None
    assert other.best["epoch"] == 6
    assert not changed(last.model.state_dict(), other.model.state_dict())


def test_the_best_average_is_what_was_evaluated(videos: VideoList, val: VideoList, tmp_path: Path) -> None:
    recipe = replace(PLAIN, ema=0.5, best="top1")
    done = finetune(small(), videos, recipe, tmp_path, val=val, progress=False)
    assert done.best is not None
    assert evaluate(done.model, val, progress=False).top1 == done.best["value"]
    assert done.best["value"] == max(entry["top1"] for entry in done.history)


def test_patience_ends_a_run_and_more_of_it_goes_on(
    videos: VideoList, val: VideoList, tmp_path: Path, capsys: Output
) -> None:
    recipe = replace(PLAIN, epochs=8, lr=0.0, best="top1", patience=2)  # nothing is learned: the first is the best
    done = finetune(small(), videos, recipe, tmp_path, val=val)
    assert [entry["epoch"] for entry in done.history] == [1, 2, 3]
    value = done.history[0]["top1"]
    assert f"stopped after epoch 3 of 8: top1 was best in epoch 1 ({value:.4g})" in capsys.readouterr().err
    assert len(finetune(small(), videos, recipe, tmp_path, val=val).history) == 3
    assert "nothing to train (a greater patience goes on)" in capsys.readouterr().err
    more = finetune(small(), videos, replace(recipe, patience=4), tmp_path, val=val)
    assert len(more.history) == 5
    said = capsys.readouterr().err
    assert "resuming at epoch 4 of 8, step 9 of 24, learning rate 0, from " in said
    assert "the recipe has changed: patience was 2 and is now 4" in said


def test_any_metric_of_an_epoch_says_which_is_the_best(videos: VideoList, val: VideoList, tmp_path: Path) -> None:
    done = finetune(small(), videos, replace(PLAIN, best="macro_f1"), tmp_path, val=val, progress=False)
    assert done.best is not None
    assert done.best["value"] == max(entry["macro_f1"] for entry in done.history)
    assert list((tmp_path / "checkpoints").glob("best-*"))
    # Who goes on to the last leaves none behind.
    finetune(small(), videos, replace(PLAIN, epochs=4), tmp_path, val=val, progress=False)
    assert not list((tmp_path / "checkpoints").glob("best-*"))


def test_what_the_evaluation_would_refuse_is_refused_before_an_epoch(
    videos: VideoList, val: VideoList, tmp_path: Path
) -> None:
    told: list[object] = []
    gone = replace(val, missing=(val.samples[0]._replace(path="gone.mp4"),))
    with pytest.raises(MissingVideosError, match=r"gone\.mp4"):
        finetune(small(), videos, PLAIN, tmp_path / "a", val=gone, progress=False, on_epoch=told.append)
    with pytest.raises(MissingVideosError, match=r"gone\.mp4"):
        plan(small(), videos, PLAIN, tmp_path / "a", val=gone)
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("best", ["last", "loss"])
def test_an_evaluation_that_fails_costs_no_epoch(
    best: str, videos: VideoList, val: VideoList, tmp_path: Path, capsys: Output
) -> None:
    recipe = replace(PLAIN, best=best)
    whole = finetune(small(), videos, recipe, tmp_path / "whole", val=val, progress=False)
    damaged = tmp_path / "damaged.mp4"
    damaged.write_bytes(b"this is no video")
    bad = replace(val, samples=(val.samples[0]._replace(path=str(damaged)), *val.samples[1:]))
    with pytest.raises(VideoReadError, match=r'damaged.mp4: .*; on_error="skip" leaves it out'):
        finetune(small(), videos, recipe, tmp_path / "run", val=bad, progress=False)
    told: list[Any] = []
    begun = plan(small(), videos, recipe, tmp_path / "run", val=val)
    assert begun.done == 3
    assert "resuming with the evaluation of epoch 1 of 3, from " in begun.report()
    done = finetune(small(), videos, recipe, tmp_path / "run", val=val, on_epoch=told.append)
    assert "resuming with the evaluation of epoch 1 of 3, from " in capsys.readouterr().err
    assert told == done.history == whole.history
    assert not changed(whole.model.state_dict(), done.model.state_dict())
    # The state that is left has the evaluation, too.
    again = finetune(small(), videos, recipe, tmp_path / "run", val=bad, progress=False)
    assert (again.history, again.best) == (whole.history, whole.best)


class Diary(GeneralTracker):
    """Of all that is logged."""

    name = "diary"
    requires_logging_directory = False

    def __init__(self) -> None:
        super().__init__()
        self.entries: list[tuple[int, dict[str, Any]]] = []

    @property
    def tracker(self) -> None:
        return None

    def store_init_configuration(self, values: dict[str, Any]) -> None: ...

    def log(self, values: dict[str, Any], step: int | None, **_: Any) -> None:
        assert step is not None
        self.entries.append((step, values))


def test_trackers_get_steps_and_epochs_of_the_run_alone(videos: VideoList, val: VideoList, tmp_path: Path) -> None:
    diary = Diary()
    accelerator = Accelerator(log_with=diary)
    accelerator.init_trackers("test")
    recipe = replace(PLAIN, epochs=1)
    plan(small(), videos, recipe, tmp_path, val=val, accelerator=accelerator)
    find_lr(small(), videos, recipe, steps=3, accelerator=accelerator, progress=False)
    assert diary.entries == []
    done = finetune(small(), videos, recipe, tmp_path, val=val, accelerator=accelerator, progress=False)
    assert [step for step, _ in diary.entries] == [1, 2, 3, 3]
    assert all(values.keys() == {"loss", "lr"} for _, values in diary.entries[:3])
    said = diary.entries[-1][1]
    assert (said["epoch"], said["top1"], said["epoch_loss"]) == (
        1,
        done.history[0]["top1"],
        done.history[0]["loss"],
    )


def test_a_metric_that_there_will_not_be_is_refused_at_once(videos: VideoList, val: VideoList, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"best is 'top7'; expected last, loss or top1"):
        finetune(small(), videos, replace(PLAIN, best="top7"), tmp_path, val=val)
    with pytest.raises(ValueError, match=r"best is 'top1'; expected without validation last, loss\."):
        finetune(small(), videos, replace(PLAIN, best="top1"), tmp_path)
    with pytest.raises(ValueError, match="best is 'top5'; expected last, loss or top1"):  # of three classes
        finetune(small(), videos, replace(PLAIN, best="top5"), tmp_path, val=val, progress=False)


# ---- going on ----


def test_a_finished_run_says_so_and_can_be_extended(videos: VideoList, tmp_path: Path, capsys: Output) -> None:
    recipe = replace(PLAIN, epochs=2, schedule="cosine", lr=0.02)
    first = finetune(small(), videos, recipe, tmp_path)
    assert "resuming" not in capsys.readouterr().err
    again = finetune(small(), videos, recipe, tmp_path)
    assert "finished: 2 of 2 epochs are done; nothing to train (more extend it)" in capsys.readouterr().err
    assert again.history == first.history
    longer = finetune(small(), videos, replace(recipe, epochs=4), tmp_path)
    said = capsys.readouterr().err
    # Half way down the cosine of four epochs, and half a step.
    assert "resuming at epoch 3 of 4, step 6 of 12, learning rate 0.00869, from " in said
    assert "epochs was 2 and is now 4" in said
    assert longer.history[:2] == first.history
    rates = [entry["lr"] for entry in longer.history]
    assert rates[2] > rates[1]  # a warm restart
    assert all(later < earlier for earlier, later in pairwise(rates[2:]))
    with pytest.raises(ValueError, match=r"has been trained for 4 of its epochs, and Recipe.epochs is 3"):
        finetune(small(), videos, replace(recipe, epochs=3), tmp_path)


def test_a_run_goes_on_with_its_own_videos_and_weights_alone(videos: VideoList, films: Path, tmp_path: Path) -> None:
    recipe = replace(PLAIN, epochs=1)
    done = finetune(small(), videos, recipe, tmp_path / "run", progress=False)
    first, *others = videos.samples
    for other in (first._replace(target=2), first._replace(end=0.5), first._replace(path="other.mp4")):
        with pytest.raises(
            ValueError, match=r"made with names and targets of the videos \(digest\) = .*another folder"
        ):
            finetune(small(), replace(videos, samples=(other, *others)), recipe, tmp_path / "run", progress=False)
    torch.manual_seed(1)
    model = small()
    with torch.no_grad():
        model.blocks[0].mlp.fc1.weight[0, 0] += 1
    with pytest.raises(ValueError, match=r"made with weights to start from \(digest, without the head\) = "):
        finetune(model, videos, recipe, tmp_path / "run", progress=False)
    # The head is made anew by each process, and the folder of the videos may have another place by now.
    model = small()
    model.reset_classifier(3)
    moved = shutil.copytree(films, tmp_path / "moved")
    again = finetune(model, read_videos("folder", moved), recipe, tmp_path / "run", progress=False)
    assert not changed(done.model.state_dict(), again.model.state_dict())


def test_with_constant_steps_extending_is_as_if_it_had_been_meant(videos: VideoList, tmp_path: Path) -> None:
    whole = finetune(small(), videos, PLAIN, tmp_path / "a", progress=False)
    finetune(small(), videos, replace(PLAIN, epochs=1), tmp_path / "b", progress=False)
    longer = finetune(small(), videos, PLAIN, tmp_path / "b", progress=False)
    assert longer.history == whole.history
    assert not changed(whole.model.state_dict(), longer.model.state_dict())


# ---- several processes ----


def control(films: Path, out: Path) -> None:
    from accelerate import PartialState

    train, held = read_videos("folder", films), read_videos("folder", films, "val")
    recipe = replace(PLAIN, freeze="1", balanced_sampling=True, class_weights=(1.0, 2.0, 0.5), best="top1", patience=1)
    done = finetune(small(), train, recipe, out, val=held, progress=False)
    if PartialState().is_main_process:
        (out / "history.json").write_text(json.dumps([done.history, done.best]))


def test_two_processes_do_what_one_does(films: Path, tmp_path: Path) -> None:
    assert join(launch(2, control, films, tmp_path / "two")) == [0, 0]
    assert join(launch(1, control, films, tmp_path / "one")) == [0]
    (two, best_two), (one, best_one) = (
        json.loads((tmp_path / name / "history.json").read_text()) for name in ("two", "one")
    )
    assert len(one) == len(two)
    for a, b in zip(one, two, strict=True):
        assert {k: v for k, v in a.items() if v is not None} == pytest.approx(
            {k: v for k, v in b.items() if v is not None}, rel=1e-4
        )
    assert best_one == pytest.approx(best_two) or best_one["epoch"] == best_two["epoch"]
    a, b = (load_file(next((tmp_path / name / "checkpoints").glob("best-*.safetensors"))) for name in ("one", "two"))
    for name, value in a.items():
        torch.testing.assert_close(value, b[name], rtol=1e-5, atol=1e-5)
