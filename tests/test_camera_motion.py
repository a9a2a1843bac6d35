"""The camera-motion data and its training script (examples/)."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))

import camera_motion as data
import fetch_camera_motion_sources as fetch
import train_camera_motion as training
from camera_motion_textures import TEXTURES, fractal


@pytest.fixture(scope="module")
def sources() -> list[data.Source]:
    return data.textures(6, seed=1, size=192)


@pytest.fixture(scope="module")
def smooth() -> list[data.Source]:
    generator = torch.Generator().manual_seed(0)
    return [data.Source.of(str(i), (fractal(generator, 256, 1.8)[None] * 255).to(torch.uint8)) for i in range(8)]


def test_a_batch_depends_on_seed_and_number_alone(sources: list[data.Source]) -> None:
    def batch(seed: int, step: int) -> tuple[Tensor, Tensor]:
        return data.CameraMotion(sources, 9, 10, seed, procedural=0.5, warmup=5, variety=2)[step][:2]

    first, labels = batch(3, 2)
    assert first.shape == (9, 3, 8, 64, 64)
    assert sorted(labels.tolist()) == list(range(9))
    assert torch.equal(batch(3, 2)[0], first)
    assert torch.equal(batch(3, 2)[1], labels)
    assert not torch.equal(batch(4, 2)[0], first)
    assert not torch.equal(batch(3, 3)[0], first)


def measured(clip: Tensor) -> Tensor:
    """(4,) how far the view moved right, moved down, widened, turned clockwise (unit: pixels, root mean square).

    Least squares on brightness constancy between successive frames, which knows nothing of how clips are made.
    """
    grey = torch.nn.functional.avg_pool2d(clip.mean(0)[:, None], 5, 1)[:, 0]
    middle = (grey[1:] + grey[:-1]) / 2
    gy, gx = torch.gradient(middle, dim=(1, 2))
    axis = torch.arange(grey.shape[-1]) - (grey.shape[-1] - 1) / 2
    axis = axis / (2 * axis.square().mean()).sqrt()
    x, y = axis[None], axis[:, None]
    columns = torch.stack((gx, gy, x * gx + y * gy, x * gy - y * gx), -1).flatten(1, 2)
    change = (grey[1:] - grey[:-1]).flatten(1)[..., None]
    return torch.linalg.lstsq(columns, change).solution[..., 0].sum(0)


def test_the_camera_does_what_the_label_says(smooth: list[data.Source]) -> None:
    batches = data.CameraMotion(smooth, 54, 1, seed=5, augment=False)
    clips, labels, _ = batches[0]
    right = 0
    for clip, label in zip(clips, labels.tolist(), strict=True):
        motion = measured(clip)
        strongest = int(motion.abs().argmax())
        expected = data.MOTIONS[data.LABELS[label]]
        if expected is None:
            right += bool(motion.abs().max() < 1.5)
        else:
            right += (strongest, int(motion[strongest].sign())) == expected
    assert right >= 52  # fast ones can be too far for brightness constancy


@pytest.mark.parametrize("column", [2, 3])
def test_zoom_and_tilt_of_a_frame_do_not_tell_the_class(column: int) -> None:
    generator = torch.Generator().manual_seed(0)
    moving, static = (
        data.LABELS.index(name) for name in (("zoom in", "static") if column == 2 else ("roll clockwise", "static"))
    )

    def spread(label: int) -> Tensor:
        values = data.poses(torch.full((6000,), label), generator)[..., column].abs().flatten()
        return torch.quantile(values, torch.tensor([0.25, 0.5, 0.75, 0.95]))

    assert torch.allclose(spread(moving), spread(static), rtol=0.1)


def test_speeds_and_shake_keep_to_their_limits() -> None:
    labels = torch.arange(900) % 9
    pose = data.poses(labels, torch.Generator().manual_seed(1))
    total = (pose[:, -1] - pose[:, 0]).abs()
    for label, name in enumerate(data.LABELS):
        motion = data.MOTIONS[name]
        for column, (low, high) in data.SPEED.items():
            slack = 2 * data.SHAKE if column < 2 else 1e-5
            if motion and motion[0] == column:
                assert total[labels == label, column].min() >= low - slack
                assert total[labels == label, column].max() <= high + slack
            else:
                assert total[labels == label, column].max() <= data.DRIFT[column] + slack


def ripples(kind: str) -> Tensor:
    """(3, 8, 64, 64): a picture along which some motion can't be seen."""
    axis = torch.arange(64.0) - 31.5
    y, x = axis[:, None], axis[None]
    wave = {
        "black": torch.zeros(64, 64),
        "sky": (0.6 + 0.002 * y).expand(64, 64),
        "horizontal stripes": torch.sin(y / 2).expand(64, 64),
        "diagonal stripes": torch.sin((x + y) / 3),
        "rings": torch.sin((x.square() + y.square()).sqrt() / 2),
    }[kind]
    return (0.5 + 0.5 * wave).clamp(0, 1).expand(3, 8, 64, 64)


@pytest.mark.parametrize("kind", ["black", "sky", "horizontal stripes", "diagonal stripes", "rings"])
def test_clips_in_which_a_motion_cannot_be_seen_are_left_out(kind: str) -> None:
    assert data.response(ripples(kind)) < data.MIN_RESPONSE


def test_clips_with_texture_are_kept() -> None:
    generator = torch.Generator().manual_seed(2)
    for maker in TEXTURES:
        picture = maker(generator, 64)
        assert picture.shape == (3, 64, 64)
        assert 0 <= picture.min() <= picture.max() <= 1
    assert data.response(fractal(generator, 64)[:, None].expand(3, 8, 64, 64)) > data.MIN_RESPONSE


def test_footage_is_used_while_its_camera_rests_though_things_move() -> None:
    generator = torch.Generator().manual_seed(3)
    scene = (fractal(generator, 160, 1.2) * 255).to(torch.uint8)
    still = scene.expand(24, 3, 160, 160).clone()
    for t in range(24):
        still[t, :, 40:80, 3 * t : 3 * t + 40] = 0  # something passes by
    moving = torch.stack([scene.roll(2 * t, 2) for t in range(24)])
    assert data.resting(still, strides=(1,))
    assert not data.resting(moving, strides=(1,))


def test_train_and_test_share_no_source(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    for i in range(60):
        image.new("RGB", (96, 96), (i, 2 * i, 3 * i)).save(tmp_path / f"{i}.png")
    names = {split: {s.name for s in data.load_sources(tmp_path, split)} for split in data.SPLITS}
    assert sum(map(len, names.values())) == len(set().union(*names.values())) == 60
    for source in fetch.SOURCES:
        patterns = [*source.train, *source.val, *source.test]
        assert len(patterns) == len(set(patterns)) > 0
    with pytest.raises(FileNotFoundError, match="fetch_camera_motion_sources"):
        data.load_sources(tmp_path / "nowhere", "train")


def test_the_first_step_begins_as_a_difference_in_time() -> None:
    """A still clip adds nothing to its tokens but the values' bias; one that changes does."""
    model = training.build("divided", {"embed_dim": 128, "depth": 1, "num_heads": 4}, seed=0).eval()
    step = next(model.attention_steps())
    frames = torch.randn(1, 3, 8, 64, 64, generator=torch.Generator().manual_seed(0))
    change = []
    for clip in (frames[:, :, :1].expand_as(frames), frames):
        with torch.no_grad():
            tokens, _ = model.embed(clip)
            values = step.qkv(step.norm(tokens[:, 1:])).view(1, 8, 16, 3, 4, 32)
            query, key, value = values.permute(3, 0, 2, 4, 1, 5)  # each (B, N, heads, T, D / heads)
            mixed = ((query @ key.mT / 32**0.5).softmax(-1) @ value).transpose(2, 3).flatten(3)
            change.append(step.proj(mixed)[:, :, 2:6].square().mean())  # at the ends a frame to look at is missing
    assert change[0] < 0.3 * change[1]


def arguments(out: Path, *more: str) -> list[str]:
    tiny = '{"embed_dim": 32, "depth": 1, "num_heads": 2}'
    plain = "--steps 4 --batch-size 4 --every 2 --workers 0 --val-batches 1 --curriculum 2 --warmup 2"
    return ["sources", "--out", str(out), "--model", tiny, *plain.split(" "), *more]


def test_a_resumed_run_equals_an_uninterrupted_one(
    sources: list[data.Source], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "PROCEDURAL", 0.0)

    def run(out: Path, *more: str) -> dict[str, Tensor]:
        args = training.parse(arguments(out, *more))
        model = training.build(args.mode, args.model, args.seed)
        training.train(model, sources, sources, out, args)
        return model.state_dict()

    whole = run(tmp_path / "whole")
    plain_batches = training.batches

    def interrupted(dataset: data.CameraMotion, first: int, workers: int):  # type: ignore[no-untyped-def]
        for step, batch in enumerate(plain_batches(dataset, first, workers), first):
            if dataset.augment and step == 3:  # one step after the last saved state
                raise KeyboardInterrupt
            yield batch

    with monkeypatch.context() as patch:
        patch.setattr(training, "batches", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "cut")
    resumed = run(tmp_path / "cut")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert math.isfinite(float(sum(tensor.sum() for tensor in whole.values())))
    with pytest.raises(ValueError, match="another --out"):
        run(tmp_path / "cut", "--lr", "0.5")
