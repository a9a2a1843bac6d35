"""Runs over several processes: as in one, wrapped (DDP) or sharded (FSDP2), and resumed by any number of them."""

import os
import shutil
from dataclasses import replace
from importlib.metadata import version

import pytest
import torch
from footage import films_by_class, pieces, write
from ranks import FSDP2, join, launch
from timm.utils import ModelEmaV3

from timesformer_zoo import TimeSformer, finetune, read_videos
from timesformer_zoo.train.average import WeightAverage
from timesformer_zoo.train.recipe import RECIPES

# The small-data recipe's average, clipped gradients, layer decay, drop path and two clips a video; steps of 4, 4 and 2
# videos, in micro-batches some of which are empty, one video that is none.
RECIPE = replace(RECIPES["small-data"], epochs=2, batch_size=4, accumulation=2, lr=2e-4, warmup=0.0, drop_path=0.3)

JOINS_CPUS = tuple(map(int, version("accelerate").split(".")[:2])) < (1, 15)


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    folder = films_by_class(tmp_path_factory.mktemp("films"), 4)
    broken = write(folder / "bikes" / "broken.mp4", pieces("bikes", 1)[0])
    broken.write_bytes(b"this is no video")
    return folder


def train(films, out, recipe=RECIPE, frozen="patch_embed", seed=0, task="classes"):
    """What a rank does. The first one's weights count, so the others have different ones."""
    rank = int(os.environ.get("RANK", 0))
    torch.manual_seed(rank)
    sizes = dict(img_size=32, num_frames=4, num_classes=3, embed_dim=32, depth=2, num_heads=2)
    model = TimeSformer(clip=dict(stride=2, fps=None, crops=1), drop_path_rate=recipe.drop_path, **sizes)
    torch.manual_seed(seed + rank)  # a run goes on with a head that was made anew; the weights are those of its state
    model.reset_classifier(3)
    model.get_submodule(frozen).requires_grad_(False)
    videos, val = (as_task(read_videos("folder", films, split), task) for split in ("train", "val"))
    done = finetune(model, videos, recipe, out, val=val, workers=1, save_every=2, on_error="skip", progress=False)
    history = [{name: value for name, value in entry.items() if value is not None} for entry in done.history]
    result = (done.model.state_dict(), history, {os.path.basename(path) for path in done.skipped})
    torch.save(result, out / f"result-{rank}.pt")


def as_task(videos, task):
    """The same videos with targets of another kind: labels, or values far from 0."""
    targets = {
        "classes": lambda i: videos.samples[i].target,
        "multilabel": lambda i: tuple(j for j in range(3) if i >> j & 1),
        "regression": lambda i: (1000.0 + i, 0.1 * i * i, -1.0),
    }[task]
    samples = tuple(sample._replace(target=targets(i)) for i, sample in enumerate(videos.samples))
    return replace(videos, task=task, samples=samples)


def results(folder):
    """Of each rank of the last launch; taken away, so that the next has to give its own."""
    paths = sorted(folder.glob("result-*.pt"))
    loaded = [torch.load(path) for path in paths]
    for path in paths:
        path.unlink()
    return loaded


def assert_all_equal(folder, expected, ranks):
    weights, history, skipped = expected
    found = results(folder)
    assert len(found) == ranks
    for theirs, entries, missing in found:
        torch.testing.assert_close(theirs, weights, rtol=1e-5, atol=1e-5)
        assert len(entries) == len(history)
        for got, entry in zip(entries, history, strict=True):
            torch.testing.assert_close(got, entry, rtol=1e-5, atol=1e-5)
        assert missing == skipped


def forget_the_end(folder):
    """Back to the state in the middle of the second epoch, at which a kill would have left the run."""
    assert [path.name for path in sorted((folder / "checkpoints").iterdir())] == ["step-00000004", "step-00000006"]
    shutil.rmtree(folder / "checkpoints" / "step-00000006")


@pytest.fixture(scope="module")
def one(films, tmp_path_factory):
    """(weights, history, skipped) of one process, and the folder of its run."""
    folder = tmp_path_factory.mktemp("one")
    assert join(launch(1, train, films, folder)) == [0]
    return results(folder)[0], folder


def go_on(films, folder):
    """Another head to begin with: who begins anew comes to another result."""
    train(films, folder, seed=10)


def test_two_ranks_and_two_shards_equal_one_process_and_go_on_from_each_other(films, one, tmp_path):
    expected, first = one
    assert expected[2] == {"broken.mp4"}
    folder = tmp_path / "run"
    for environment in ({}, FSDP2):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        assert join(launch(2, train, films, folder, **environment)) == [0, 0]
        assert_all_equal(folder, expected, 2)
    forget_the_end(folder)
    assert join(launch(3, go_on, films, folder, **FSDP2)) == [0, 0, 0]  # 2 -> 3
    assert_all_equal(folder, expected, 3)
    forget_the_end(folder)
    go_on(films, folder)  # 3 -> 1, FSDP2 -> a plain model
    assert_all_equal(folder, expected, 1)
    shutil.copytree(first / "checkpoints", tmp_path / "more" / "checkpoints")
    forget_the_end(tmp_path / "more")
    assert join(launch(2, go_on, films, tmp_path / "more", **FSDP2)) == [0, 0]  # 1 -> 2
    assert_all_equal(tmp_path / "more", expected, 2)
    forget_the_end(tmp_path / "more")
    assert join(launch(2, go_on, films, tmp_path / "more")) == [0, 0]  # FSDP2 -> DDP
    assert_all_equal(tmp_path / "more", expected, 2)


@pytest.mark.parametrize(
    ("task", "changes"),
    [
        ("regression", dict(freeze="1", best="mae")),
        pytest.param("multilabel", dict(best="mAP", class_weights=(1.0, 2.0, 0.5)), marks=pytest.mark.slow),
        pytest.param("classes", dict(freeze="1", best="loss", balanced_sampling=True), marks=pytest.mark.slow),
        pytest.param("classes", dict(freeze="backbone", best="macro_f1", patience=2), marks=pytest.mark.slow),
    ],
)
def test_so_do_frozen_layers_the_best_average_and_each_kind_of_target(films, tmp_path, task, changes):
    recipe = replace(RECIPE, **changes)
    (tmp_path / "one").mkdir()
    train(films, tmp_path / "one", recipe, task=task)
    expected = results(tmp_path / "one")[0]
    (tmp_path / "two").mkdir()
    assert join(launch(2, train, films, tmp_path / "two", recipe, "patch_embed", 0, task, **FSDP2)) == [0, 0]
    assert_all_equal(tmp_path / "two", expected, 2)
    shutil.rmtree(tmp_path / "two" / "checkpoints" / "step-00000006")
    assert join(launch(2, train, films, tmp_path / "two", recipe, "patch_embed", 10, task)) == [0, 0]
    assert_all_equal(tmp_path / "two", expected, 2)


def test_an_optimizer_with_numbers_beside_its_tensors_goes_on(films, tmp_path):
    recipe = replace(RECIPE, optimizer="adan", accumulation=1)  # timm's counts its steps in the groups of parameters
    train(films, tmp_path, recipe)
    expected = results(tmp_path)[0]
    forget_the_end(tmp_path)
    train(films, tmp_path, recipe, seed=10)
    assert_all_equal(tmp_path, expected, 1)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {"FSDP_ACTIVATION_CHECKPOINTING": "true"},
        {"FSDP_RESHARD_AFTER_FORWARD": "false", "FSDP_STATE_DICT_TYPE": "FULL_STATE_DICT"},
    ],
    ids=lambda options: next(iter(options)),
)
def test_options_of_fsdp2_change_nothing(films, one, tmp_path, options):
    assert join(launch(2, train, films, tmp_path, **FSDP2, **options)) == [0, 0]
    assert_all_equal(tmp_path, one[0], 2)


@pytest.mark.slow
def test_half_precision_is_near_in_all(films, one, tmp_path):
    for name, ranks, env in (("one", 1, {}), ("ddp", 2, {}), ("fsdp2", 2, FSDP2)):
        (tmp_path / name).mkdir()
        assert (
            join(launch(ranks, train, films, tmp_path / name, ACCELERATE_MIXED_PRECISION="bf16", **env)) == [0] * ranks
        )
        for weights, history, _ in results(tmp_path / name):
            torch.testing.assert_close(weights, one[0][0], rtol=0, atol=1e-3)
            assert history[-1]["loss"] == pytest.approx(one[0][1][-1]["loss"], rel=0.02)


def test_the_average_is_timms(tmp_path):
    model = torch.nn.Linear(3, 2)
    theirs, ours = ModelEmaV3(model, decay=0.7, use_warmup=True), WeightAverage(model, 0.7)
    for step in range(1, 9):
        with torch.no_grad():
            model.weight.add_(torch.randn(2, 3))
        theirs.update(model, step=step)
        ours.update(step)
    own = model.weight.clone()
    with ours.in_place():
        torch.testing.assert_close(model.state_dict(), theirs.module.state_dict())
    assert torch.equal(model.weight, own)


def refused(films, out, message):
    with pytest.raises(ValueError, match=message):
        train(films, out)


@pytest.mark.skipif(torch.cuda.is_available(), reason="with GPUs, these would run")
@pytest.mark.parametrize(
    ("ranks", "environment", "message"),
    [
        pytest.param(
            *(2, {"ACCELERATE_USE_CPU": "false"}, "one of 2 processes, .* set ACCELERATE_USE_CPU=true"),
            marks=pytest.mark.skipif(JOINS_CPUS, reason="this accelerate joins processes on CPUs without being told"),
        ),
        (1, {"ACCELERATE_USE_CPU": "false", **FSDP2}, "FSDP was asked for, but accelerate has none on cpu"),
        (1, {**FSDP2, "FSDP_VERSION": "1"}, "FSDP of version 1, expected 2: launch with --fsdp_version 2"),
    ],
)
def test_a_launch_that_would_not_do_what_it_says_is_refused(films, tmp_path, ranks, environment, message):
    assert join(launch(ranks, refused, films, tmp_path, message, **environment)) == [0] * ranks
