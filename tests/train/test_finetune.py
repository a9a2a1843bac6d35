"""Recipes, and training runs: the same however they are dealt out, killed and resumed."""

import math
import os
import signal
import time
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from footage import films_by_class, pieces, video_list, write
from ranks import LIMIT, join, launch
from safetensors.torch import load_file

from timesformer_zoo import TimeSformer, VideoDataset, finetune, normalize_clips, read_videos
from timesformer_zoo.train.optim import make_optimizer, mix_clips, set_learning_rate
from timesformer_zoo.train.recipe import RECIPES, Recipe, learning_rate, step_learning_rate
from timesformer_zoo_cli import main

PLAIN = Recipe(epochs=2, batch_size=4, lr=0.02, drop_path=0.0)


def small(seed=0, **options):
    torch.manual_seed(seed)
    clip = dict(stride=2, fps=None, crops=1)
    sizes = dict(img_size=32, num_frames=4, num_classes=3, embed_dim=32, depth=2, num_heads=2)
    return TimeSformer(clip=clip, **{**sizes, **options})


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    return films_by_class(tmp_path_factory.mktemp("films"), 4)


@pytest.fixture(scope="module")
def videos(films):
    return read_videos("folder", films)  # 3 of each


def run(videos, folder, recipe=PLAIN, model=None, **options):
    return finetune(model or small(), videos, recipe, folder, progress=False, **options)


def assert_same(a, b, tolerance=0.0):
    for name, value in a.items():
        torch.testing.assert_close(value, b[name], rtol=tolerance, atol=tolerance, msg=lambda m, n=name: f"{n}: {m}")


# ---- recipes ----


def test_the_papers_schedule():
    paper = RECIPES["paper"]
    assert (paper.epochs, paper.momentum, paper.weight_decay) == (15, 0.9, 1e-4)
    rates = [learning_rate(paper, epoch) for epoch in (0, 10.99, 11, 13.99, 14, 14.99)]
    assert rates == pytest.approx([0.005, 0.005, 0.0005, 0.0005, 0.00005, 0.00005])


def test_cosine_with_warmup():
    recipe = Recipe(epochs=10, lr=1.0, schedule="cosine", warmup=2)
    rates = [learning_rate(recipe, epoch / 2) for epoch in range(21)]
    assert rates[:5] == [0, 0.25, 0.5, 0.75, 1]
    assert all(later < earlier for earlier, later in pairwise(rates[4:]))
    assert rates[12] == pytest.approx(0.5)  # half way from 2 to 10
    assert rates[20] == pytest.approx(0)


@pytest.mark.parametrize("schedule", ["steps", "cosine"])
def test_no_step_is_lost_to_a_learning_rate_of_0(schedule):
    recipe = Recipe(epochs=4, lr=1.0, schedule=schedule, milestones=(3,), warmup=2)
    assert [step_learning_rate(recipe, step, 1) for step in range(2)] == [0.25, 0.75]
    assert step_learning_rate(recipe, 3, 1) > 0.05
    fine = [step_learning_rate(recipe, step, 100) for step in range(400)]
    assert sum(fine) / 100 == pytest.approx(sum(step_learning_rate(recipe, step, 1) for step in range(4)), rel=1e-3)
    if schedule == "steps":  # a milestone is where it was
        assert fine[299:301] == pytest.approx([1.0, 0.1])


def test_layer_decay_and_weight_decay_groups():
    model = small()
    optimizer = make_optimizer(model, Recipe(optimizer="adamw", layer_decay=0.5, weight_decay=0.1))
    set_learning_rate(optimizer, 1.0)
    group = {id(p): g for g in optimizer.param_groups for p in g["params"]}
    assert len(group) == len(list(model.parameters()))
    rate = {name: group[id(p)]["lr"] for name, p in model.named_parameters()}
    decay = {name: group[id(p)]["weight_decay"] for name, p in model.named_parameters()}
    # embeddings, block 0, block 1, and the norm and the head
    names = ("patch_embed.proj.weight", "blocks.0.mlp.fc1.weight", "blocks.1.mlp.fc1.weight", "head.weight")
    assert [rate[name] for name in names] == [0.125, 0.25, 0.5, 1.0]
    assert rate["pos_embed"] == rate["time_embed"] == 0.125
    assert decay["pos_embed"] == decay["time_embed"] == decay["cls_token"] == decay["head.bias"] == 0
    assert decay["head.weight"] == 0.1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(epochs=0), "epochs is 0, expected 1 or more"),
        (dict(schedule="linear"), "schedule is 'linear', expected steps or cosine"),
        (dict(lr=math.nan), "lr is nan, expected 0 or more"),
        (dict(freeze="head"), "freeze is 'head', expected none, embed, backbone or blocks"),
        (dict(class_weights="even"), "class_weights is 'even', expected None, balanced, or a number"),
        (dict(class_weights=(1, -1)), "class_weights is"),
        (dict(class_weights="balanced", balanced_sampling=True), "each is enough"),
        (dict(patience=2), "best is 'last', expected a metric"),
        (dict(patience=0, best="top1"), "patience is 0"),
        (dict(ema=1.0), "ema is 1.0, expected 0 or more, and less than 1"),
        (dict(label_smoothing=-0.1), "label_smoothing is -0.1"),
        (dict(clip_grad=0.0), "clip_grad is 0.0, expected more than 0"),
        (dict(milestones=(14, 11)), r"milestones is \(14, 11\), expected ascending epochs"),
    ],
)
def test_recipes_refuse_nonsense(settings, message):
    with pytest.raises(ValueError, match=message):
        Recipe(**settings)


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_mixing_is_the_same_in_all_frames(kind):
    clips = torch.arange(4.0).view(4, 1, 1, 1, 1).expand(4, 3, 5, 8, 8)
    labels = torch.arange(4)
    mixed, targets = mix_clips(Recipe(**{kind: 1.0}), 4)(clips, labels, 0)
    assert type(mixed) is torch.Tensor
    assert torch.equal(mixed, mixed[:, :1, :1].expand_as(mixed))
    assert not torch.equal(mixed, clips)
    torch.testing.assert_close(targets.sum(1), torch.ones(4))
    # Clip i is all i and of class i, so its mean says what it is mixed of.
    torch.testing.assert_close(mixed.mean((1, 2, 3, 4)), targets @ torch.arange(4.0))
    # How much is mixed follows from the seed, not from how many clips there are, or what was drawn before.
    torch.rand(3)
    fewer, shares = mix_clips(Recipe(**{kind: 1.0}), 4)(clips[:2], labels[:2], 0)
    torch.testing.assert_close(fewer[1], mixed[1])
    torch.testing.assert_close(shares[1], targets[1])
    assert not torch.equal(mix_clips(Recipe(**{kind: 1.0}), 4)(clips, labels, 1)[1], targets)
    plain, same = mix_clips(Recipe(), 4)(clips, labels, 0)
    assert plain is clips
    assert same is labels


# ---- runs ----


def test_learns_and_says_how_it_went(tmp_path):
    for name, colour in {"red": (200, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 200)}.items():
        for i in range(3):
            write(
                tmp_path / "videos" / name / f"{name}{i}.mp4", torch.tensor(colour).to(torch.uint8).expand(8, 32, 32, 3)
            )
    videos, val = (read_videos("folder", tmp_path / "videos", split) for split in ("train", "val"))
    recipe = Recipe(epochs=6, batch_size=3, lr=3e-3, optimizer="adamw", drop_path=0.0)
    done = run(videos, tmp_path, recipe, val=val)
    losses = [entry["loss"] for entry in done.history]
    assert [entry["epoch"] for entry in done.history] == [1, 2, 3, 4, 5, 6]
    assert losses[-1] < 0.5 < 0.9 < losses[0]
    assert done.history[-1]["top1"] == 1.0
    assert not done.model.training
    # Asked again, there is nothing left to do.
    again = run(videos, tmp_path, recipe, val=val)
    assert again.history == done.history
    assert_same(again.model.state_dict(), done.model.state_dict())


def test_each_epoch_is_told_once_its_state_is_saved(videos, tmp_path):
    told = []

    def stop_after_the_first(entry):
        told.append(entry)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(videos, tmp_path, on_epoch=stop_after_the_first)
    done = run(videos, tmp_path, on_epoch=told.append)  # goes on with the second
    assert told == done.history
    assert [entry["epoch"] for entry in told] == [1, 2]


def test_accumulation_and_the_size_of_the_last_batch_change_nothing(videos, tmp_path):
    # 9 videos in steps of 4, 4 and 1: the last has fewer than there are micro-batches.
    # Each clip draws its drop path by itself.
    whole = run(videos, tmp_path / "a", PLAIN, small(drop_path_rate=0.4))
    parts = run(videos, tmp_path / "b", Recipe(**{**PLAIN.to_dict(), "accumulation": 3}), small(drop_path_rate=0.4))
    assert_same(whole.model.state_dict(), parts.model.state_dict(), 1e-5)
    assert [e["loss"] for e in whole.history] == pytest.approx([e["loss"] for e in parts.history], rel=1e-4)
    # The gradient is that of the mean over the clips: a step of plain SGD, by hand.
    model, recipe = small(), Recipe(epochs=1, batch_size=9, lr=0.1, momentum=0.0, weight_decay=0.0, drop_path=0.0)
    by_hand = small()
    one = run(videos, tmp_path / "c", recipe, model)
    from timesformer_zoo.data.order import Draw

    data = VideoDataset(videos, by_hand, training=True)
    items = [data[Draw(i, 0)] for i in range(9)]
    labels = torch.tensor([item.target for item in items])
    clips = normalize_clips(torch.cat([item.clips for item in items]), by_hand)
    torch.nn.functional.cross_entropy(by_hand(clips), labels).backward()
    expected = {name: p - 0.1 * p.grad for name, p in by_hand.named_parameters()}
    assert_same(expected, one.model.state_dict(), 1e-5)


def test_the_average_of_the_weights_is_the_result(videos, tmp_path):
    plain = run(videos, tmp_path / "a")
    average = run(videos, tmp_path / "b", Recipe(**{**PLAIN.to_dict(), "ema": 0.5}))
    start, end, mean = small().state_dict(), plain.model.state_dict(), average.model.state_dict()
    name = "head.weight"
    assert 0 < (mean[name] - start[name]).norm() < (end[name] - start[name]).norm()


def test_skips_are_listed_and_not_learned_from(videos, tmp_path):
    broken = write(tmp_path / "broken.mp4", pieces("bikes", 1)[0])
    broken.write_bytes(b"this is no video")
    more = video_list([broken, *(s.path for s in videos.samples)], [2, *(s.target for s in videos.samples)])
    recipe = Recipe(**{**PLAIN.to_dict(), "batch_size": 1, "epochs": 1})
    done = run(more, tmp_path / "a", recipe, on_error="skip")
    assert list(done.skipped) == [str(broken)]
    with pytest.raises(OSError, match=r"broken.mp4"):
        run(more, tmp_path / "b", recipe)


def test_refuses_a_model_or_a_checkpoint_that_does_not_fit(videos, tmp_path):
    with pytest.raises(ValueError, match=r"5 classes.* expected 3 classes, as the videos have"):
        run(videos, tmp_path, model=small(num_classes=5))
    once = Recipe(**{**PLAIN.to_dict(), "epochs": 1})
    run(videos, tmp_path, once)
    other = replace(once, lr=0.01)
    with pytest.raises(ValueError, match=r"recipe.lr = 0.02, now it is 0.01. Use the same to go on, or another folder"):
        run(videos, tmp_path, other)


def test_a_loss_that_is_no_number_stops_the_run(videos, tmp_path):
    model = small()
    with torch.no_grad():
        model.head.bias[0] = float("nan")
    with pytest.raises(FloatingPointError, match="step 0 is nan"):
        run(videos, tmp_path, model=model)


# ---- several processes ----

ARGUMENTS = (
    "--scratch --model timesformer_tiny_divided --img-size 32 --num-frames 4 --workers 1 --save-every 2 "
    "--epochs 2 --batch-size 2 --warmup 0 --mixup 0.5"
)


def train(films, out):
    assert main(["finetune", str(films), "--out", str(out), *ARGUMENTS.split()]) == 0


def test_a_run_of_two_processes_that_was_killed_goes_on_to_the_same_result(films, tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert join(launch(2, train, films, whole)) == [0, 0]
    processes = launch(2, train, films, broken)
    until = time.monotonic() + LIMIT
    while not (broken / "checkpoints" / "step-00000004").exists() and time.monotonic() < until:
        time.sleep(0.002)
    for process in processes:
        os.kill(process.pid, signal.SIGKILL)
    assert join(processes) == [-signal.SIGKILL, -signal.SIGKILL]
    assert not (broken / "model").exists()
    # What a kill in the middle of writing leaves.
    (broken / "checkpoints" / "partial-00000099").mkdir()
    assert join(launch(2, train, films, broken)) == [0, 0]
    a, b = (load_file(folder / "model" / "model.safetensors") for folder in (whole, broken))
    assert_same(a, b)
    assert (whole / "history.json").read_text() == (broken / "history.json").read_text()
    assert (whole / "results.json").read_text() == (broken / "results.json").read_text()
    assert not list((broken / "checkpoints").glob("partial-*"))
