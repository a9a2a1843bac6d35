"""What is asked before a training, or instead of one: a dry run, the range test of learning rates, a linear probe."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from footage import films_by_class, video_list
from ranks import join, launch
from torch.nn import functional as F

from timesformer_zoo import (
    MissingVideosError,
    Recipe,
    TimeSformer,
    Video,
    VideoDataset,
    VideoList,
    evaluate,
    find_lr,
    finetune,
    plan,
    probe,
    read_videos,
    save_worst,
)
from timesformer_zoo.train.features import cached_features
from timesformer_zoo.video.origin import Content

RECIPE = Recipe(epochs=3, batch_size=4, lr=0.02, drop_path=0.0)


def small(**options: Any) -> TimeSformer:
    torch.manual_seed(0)
    sizes: dict[str, Any] = dict(img_size=32, num_frames=4, num_classes=3, embed_dim=32, depth=2, num_heads=2)
    return TimeSformer(clip=dict(stride=2, fps=None, crops=2), **{**sizes, **options})


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return films_by_class(tmp_path_factory.mktemp("films"), 4)


@pytest.fixture(scope="module")
def videos(films: Path) -> VideoList:
    return read_videos("folder", films)


@pytest.fixture(scope="module")
def val(films: Path) -> VideoList:
    return read_videos("folder", films, "val")


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The videos that are read, in this process."""
    paths: list[str] = []
    read = VideoDataset._open

    def noted(self: VideoDataset, sample: Any) -> Any:
        paths.append(sample.path)
        return read(self, sample)

    monkeypatch.setattr(VideoDataset, "_open", noted)
    return paths


def state_of(model: TimeSformer) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def assert_same(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> None:
    assert all(torch.equal(value, after[name]) for name, value in before.items())


# ---- dry run ----


def test_a_dry_run_says_what_a_run_then_does(videos: VideoList, val: VideoList, tmp_path: Path) -> None:
    recipe = replace(RECIPE, freeze="1", ema=0.9, optimizer="adamw", best="loss")
    model, out = small(), tmp_path / "out"
    before = state_of(model)
    planned = plan(model, videos, recipe, out, val=val)
    assert not out.exists()
    assert_same(before, model.state_dict())
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert (planned.steps, planned.done) == (9, 0)
    assert planned.seconds == pytest.approx(9 * planned.step_seconds + 4 * planned.val_seconds)
    assert planned.val_seconds > 0
    assert planned.step_seconds > 0
    for path, fact in planned.files.items():
        height, width = Video(path).frames([0]).shape[1:3]
        assert fact == f"16 frames of {width} x {height}, 25 frames/s"
    assert {s.path for s in val.samples} <= planned.files.keys()

    finetune(model, videos, recipe, out, val=val, progress=False)
    moved = sum(v.numel() for name, v in model.state_dict().items() if not torch.equal(v, before[name]))
    assert moved <= planned.trained < planned.parameters == sum(v.numel() for v in before.values())
    sizes = {path: size for path, size in planned.writes.items() if size}
    states = sum(f.stat().st_size for f in (out / "checkpoints").rglob("*") if f.is_file() and "best" not in f.name)
    # torch.distributed.checkpoint adds some kilobytes for each tensor, which count in a model as small as this.
    extra = 2 * 4 * 2048 * len(before)
    said = sizes[f"{out / 'checkpoints'}, two training states at most"]
    assert 0.9 * said <= states <= said + extra
    best = next((out / "checkpoints").glob("best-*")).stat().st_size
    assert sizes[f"{out / 'checkpoints'}, the best weights, and for a moment those before"] == pytest.approx(
        2 * best, rel=0.1
    )
    longer = plan(model, videos, replace(recipe, epochs=4), out, val=val)
    assert longer.done == 9
    assert "resuming at epoch 4 of 4, step 9 of 12" in longer.report()
    assert "epochs was 3 and is now 4" in longer.report()
    for wrong, says in (
        (replace(recipe, lr=1.0), "another folder to start"),
        (replace(recipe, epochs=2), "for 3 of its epochs"),
    ):
        with pytest.raises(ValueError, match=says):
            plan(model, videos, wrong, out, val=val)
    found = {path.name for path in out.iterdir()}
    assert found == {"checkpoints"}
    report = planned.report()
    assert f"trains: {planned.trained:,} of {planned.parameters:,} parameters" in report
    assert f"  {out / 'model'}, {sizes[str(out / 'model')] / 1e6:.1f} MB" in report


def test_a_dry_run_finds_what_is_wrong(videos: VideoList, tmp_path: Path) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")
    few = video_list([broken, *(Path(s.path) for s in videos.samples[:3])], [0, 0, 1, 2])
    with pytest.raises(OSError, match=r"broken\.mp4"):
        plan(small(), few, RECIPE, tmp_path / "out")
    planned = plan(small(), few, RECIPE, tmp_path / "out", on_error="skip")
    assert planned.files[str(broken)].startswith(f"skipped: {broken}: ")
    missing = replace(videos, missing=videos.samples[:1])
    with pytest.raises(MissingVideosError):
        plan(small(), missing, RECIPE, tmp_path / "out")


def test_a_dry_run_of_less_than_it_times(videos: VideoList, tmp_path: Path) -> None:
    planned = plan(small(), videos, replace(RECIPE, epochs=1, batch_size=9), tmp_path)
    assert (planned.steps, planned.timed_steps) == (1, 3)
    assert planned.seconds == pytest.approx(planned.step_seconds)


# ---- learning rate ----


def test_the_range_test_ends_where_the_loss_rises(videos: VideoList, tmp_path: Path) -> None:
    model = small()
    before = state_of(model)
    recipe = replace(RECIPE, batch_size=9, warmup=2.0)
    found = find_lr(model, videos, recipe, lowest=1e-4, highest=1e4, steps=41, progress=False)
    assert_same(before, model.state_dict())
    factors = [later / earlier for earlier, later in zip(found.rates[:-1], found.rates[1:], strict=True)]
    assert factors == pytest.approx([10 ** (8 / 40)] * len(factors))
    assert found.rates[0] == pytest.approx(1e-4)
    assert found.diverged
    assert len(found.rates) < 41
    # Adam's moving average, by hand.
    average = 0.0
    for i, loss in enumerate(found.losses):
        average = 0.9 * average + 0.1 * loss
        assert found.smoothed[i] == pytest.approx(average / (1 - 0.9 ** (i + 1)))
    lowest = found.smoothed.index(min(found.smoothed))
    assert found.suggestion == found.rates[lowest] / 10
    assert 1e-3 < found.suggestion < 10
    assert f"learning rate {found.suggestion:.2g}: a tenth of {found.rates[lowest]:.2g}" in found.summary()
    found.plot(tmp_path / "curve.png")
    assert (tmp_path / "curve.png").stat().st_size > 1000
    # The first step, at the first rate, is that of a plain run: the loss is of the weights before it.
    one = replace(recipe, epochs=1, warmup=0.0)
    done = finetune(small(), videos, one, tmp_path, progress=False)
    assert found.losses[0] == pytest.approx(done.history[0]["loss"], rel=1e-5)


def test_the_range_test_refuses_no_range(videos: VideoList) -> None:
    with pytest.raises(ValueError, match=r"Expected 0 < lowest < highest and 2 steps or more, got 1, 0.1 and 5"):
        find_lr(small(), videos, RECIPE, lowest=1, highest=0.1, steps=5)
    model = small()
    with torch.no_grad():
        model.head.bias[0] = torch.nan
    with pytest.raises(ValueError, match="no finite number from a learning rate of 1e-06 on"):
        find_lr(model, videos, RECIPE, progress=False)


# ---- linear probe ----


def test_a_probe_fits_the_head_alone_and_reads_each_video_once(
    videos: VideoList, val: VideoList, tmp_path: Path, opened: list[str]
) -> None:
    model = small()
    before = state_of(model)
    recipe = replace(RECIPE, repeats=2)
    done = probe(model, videos, recipe, tmp_path, val=val, progress=False)
    assert_same(before, model.state_dict())
    moved = {name for name, value in done.model.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == {"head.weight", "head.bias"}
    assert sorted(opened) == sorted([s.path for s in (*videos.samples, *videos.samples, *val.samples)])
    opened.clear()
    again = probe(model, videos, recipe, tmp_path, val=val, progress=False)
    assert not opened
    assert_same(done.model.state_dict(), again.model.state_dict())
    chosen = [entry for entry in done.history if entry.get("chosen")]
    assert len(chosen) == 1
    assert chosen[0]["top1"] == max(entry["top1"] for entry in done.history)
    assert chosen[0]["top1"] == evaluate(done.model, val, progress=False).top1  # the cached features are the model's
    assert done.history[-1]["loss"] < 0.1 < done.history[0]["loss"]  # less decay, closer fit


def test_the_fit_is_the_minimum(videos: VideoList, val: VideoList, tmp_path: Path) -> None:
    """The gradient of the objective that the docstring states is zero, by the features of the model itself."""
    decay, recipe = 0.1, replace(RECIPE, label_smoothing=0.1, class_weights=(1.0, 2.0, 0.5))
    done = probe(small(), videos, recipe, tmp_path, val=val, weight_decays=[decay], progress=False)
    data = VideoDataset(videos, done.model)
    head, items = done.model.head, [data[i] for i in range(len(data))]
    with torch.no_grad():
        rows = [done.model.forward_features(item.clips)[:, 0] for item in items]  # type: ignore[arg-type]
        features = torch.cat([done.model.forward_head(row[:, None], pre_logits=True) for row in rows]).double()
    targets = torch.tensor([item.target for item in items]).repeat_interleave(2)
    scale = features.std(0, correction=0)
    weight = (head.weight.detach().double() * scale).requires_grad_()
    bias = (head.bias.detach().double() + head.weight.detach().double() @ features.mean(0)).requires_grad_()
    logits = F.linear((features - features.mean(0)) / scale, weight, bias)
    classes = torch.tensor([1.0, 2.0, 0.5], dtype=torch.float64)
    loss = F.cross_entropy(logits, targets, classes, label_smoothing=0.1, reduction="sum") / len(targets)
    (loss + decay / 2 * weight.square().sum()).backward()
    assert weight.grad is not None
    assert bias.grad is not None
    assert max(float(weight.grad.abs().max()), float(bias.grad.abs().max())) < 1e-4


def test_without_validation_some_videos_choose_and_all_are_fitted(videos: VideoList, tmp_path: Path) -> None:
    done = probe(small(), videos, RECIPE, tmp_path, progress=False)
    assert done.history
    assert evaluate(done.model, videos, progress=False).top1 > 0.6
    one_each = video_list([Path(s.path) for s in videos.samples[::3]], [0, 1, 2])
    with pytest.raises(ValueError, match="Got 3 videos, expected enough to fit a head on"):
        probe(small(), one_each, RECIPE, tmp_path, progress=False)


def test_what_changes_is_computed_anew(films: Path, tmp_path: Path, opened: list[str]) -> None:
    copies = tmp_path / "films"
    for path in films.rglob("*.mp4"):
        place = copies / path.relative_to(films)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(path.read_bytes())
    videos = read_videos("folder", copies)
    reads = []
    deeper = small()
    with torch.no_grad():
        deeper.blocks[1].mlp.fc1.bias.add_(1)
    other_clips, headed = small(), small()
    other_clips.clip = dict(stride=1, fps=None, crops=2)
    with torch.no_grad():
        headed.head.weight.add_(1)
    for model in (small(), headed, deeper, other_clips):
        opened.clear()
        probe(model, videos, RECIPE, tmp_path, progress=False)
        reads.append(len(opened))
    assert reads == [9, 0, 9, 9]
    opened.clear()
    first, second = (Path(sample.path) for sample in videos.samples[:2])
    first.write_bytes(second.read_bytes())
    probe(small(), videos, RECIPE, tmp_path, progress=False)
    assert opened == [str(first)]
    os.utime(second, ns=(0, 0))  # as if it had been written again, to the same size
    opened.clear()
    probe(small(), videos, RECIPE, tmp_path, progress=False)
    assert opened == [str(second)]


def test_an_interrupted_probe_goes_on(
    videos: VideoList, tmp_path: Path, opened: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("timesformer_zoo.train.features.VIDEOS_A_FILE", 4)
    read = VideoDataset._open

    def stops(self: VideoDataset, sample: Any) -> Any:
        if len(opened) == 6:
            raise KeyboardInterrupt
        return read(self, sample)

    with monkeypatch.context() as patch:
        patch.setattr(VideoDataset, "_open", stops)
        with pytest.raises(KeyboardInterrupt):
            probe(small(), videos, RECIPE, tmp_path / "a", progress=False)
    opened.clear()
    whole = probe(small(), videos, RECIPE, tmp_path / "a", progress=False)
    assert len(opened) == 5  # four were kept
    plain = probe(small(), videos, RECIPE, tmp_path / "b", progress=False)
    assert_same(plain.model.state_dict(), whole.model.state_dict())


def test_a_probe_lists_what_it_skips(videos: VideoList, val: VideoList, tmp_path: Path) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")
    more = video_list([broken, *(Path(s.path) for s in videos.samples)], [2, *(s.target for s in videos.samples)])
    with pytest.raises(OSError, match=r"broken\.mp4"):
        probe(small(), more, RECIPE, tmp_path, val=val, progress=False)
    done = probe(small(), more, RECIPE, tmp_path, val=val, on_error="skip", progress=False)
    assert list(done.skipped) == [str(broken)]


def test_videos_that_are_no_files_are_told_apart_by_their_bytes(
    videos: VideoList, val: VideoList, tmp_path: Path, opened: list[str]
) -> None:
    """Of columns, rows of train and of val have the same names."""

    def column(of: VideoList) -> VideoList:
        data = [Content(Path(sample.path).read_bytes(), f"column[{i}]") for i, sample in enumerate(of.samples)]
        samples = tuple(sample._replace(path=f"column[{i}]") for i, sample in enumerate(of.samples))
        return replace(of, samples=samples, content=lambda path: data[int(path[7:-1])])

    files = probe(small(), videos, RECIPE, tmp_path / "a", val=val, progress=False)
    rows = probe(small(), column(videos), RECIPE, tmp_path / "b", val=column(val), progress=False)
    assert rows.history == files.history
    opened.clear()
    probe(small(), column(videos), RECIPE, tmp_path / "b", val=column(val), progress=False)
    assert not opened
    # A dry run, and the page of the worst, read them, too.
    planned = plan(small(), column(videos), RECIPE, tmp_path / "c", val=column(val))
    assert planned.files["column[0]"].startswith("16 frames of ")
    page = save_worst(evaluate(rows.model, column(val), progress=False), tmp_path / "errors.html", frames=2)
    assert page.read_text("utf-8").count("<img") == 2 * len(val.samples)


def shared(films: Path, out: Path) -> None:
    from accelerate import Accelerator
    from torch import nn

    model, accelerator = small().eval(), Accelerator()
    model.head = nn.Identity()
    found, _ = cached_features(model, read_videos("folder", films), out, accelerator, progress=False)
    torch.save(found, out / f"{accelerator.process_index}.pt")


def test_two_processes_compute_a_half_each(films: Path, tmp_path: Path) -> None:
    for name, world in (("two", 2), ("one", 1)):
        (tmp_path / name).mkdir()
        assert join(launch(world, shared, films, tmp_path / name)) == [0] * world
    one = torch.load(tmp_path / "one" / "0.pt")
    for rank in range(2):
        two = torch.load(tmp_path / "two" / f"{rank}.pt")
        assert two.keys() == one.keys() == set(range(9))
        for i, rows in one.items():
            torch.testing.assert_close(two[i], rows)
