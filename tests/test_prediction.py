"""Predictions, against the same steps written out one by one."""

from pathlib import Path

import pytest
import torch
from small_models import tiny
from videos import write_video

from timesformer_zoo import (
    ClipSpec,
    Prediction,
    Score,
    TimeSformer,
    Video,
    VideoReadError,
    clip_spec,
    crop_views,
    frame_indices,
    load_views,
    save_pretrained,
    segments,
    set_labels,
)
from timesformer_zoo.prediction import fuse_views, predict, predict_windows

LABELS = ["run", "jump", "sit", "stand", "fall"]


@pytest.fixture
def model() -> TimeSformer:
    model = tiny(clip={"stride": 4, "clips": 2})
    set_labels(model, LABELS)
    return model


def expected(views: torch.Tensor, model: TimeSformer, fuse: str) -> torch.Tensor:
    with torch.no_grad():
        logits = torch.cat([model(view[None]) for view in views])
    return logits.sum(0).softmax(0) if fuse == "logits" else logits.softmax(1).mean(0)


@pytest.mark.parametrize("fuse", ["logits", "softmax"])
def test_all_views_of_a_video_are_fused_as_the_spec_says(model: TimeSformer, video: Path, fuse: str) -> None:
    assert model.clip is not None
    model.clip["fuse"] = fuse
    views = load_views(video, model)
    assert len(views) == 6
    probabilities = expected(views, model, fuse)
    prediction = predict(model, video)
    assert prediction.path == str(video)
    # 4 frames, 4 apart at 30 a second, are 13.3 frames of this video; the second clip starts halfway along the rest.
    assert (prediction.start, prediction.end, prediction.duration) == (0.0, pytest.approx(37 / 25), 2.4)
    assert [score.label for score in prediction.top] == [LABELS[score.class_index] for score in prediction.top]
    assert [score.class_index for score in prediction.top] == probabilities.argsort(descending=True).tolist()
    torch.testing.assert_close(
        torch.tensor([score.probability for score in prediction.top]), probabilities.sort(descending=True).values
    )


def test_fusing_by_hand() -> None:
    logits = torch.tensor([[0.0, 2.0, 1.0], [3.0, 0.0, 1.0]])
    torch.testing.assert_close(fuse_views(logits, "logits").exp(), torch.tensor([3.0, 2.0, 2.0]).softmax(0))
    torch.testing.assert_close(fuse_views(logits, "softmax").exp(), (logits[0].softmax(0) + logits[1].softmax(0)) / 2)


def test_views_asked_for_win_over_the_spec(model: TimeSformer, video: Path) -> None:
    probabilities = expected(load_views(video, model, clips=1, crops=1), model, "logits")
    prediction = predict(model, video, 1, clips=1, crops=1)
    assert prediction.top[0].probability == pytest.approx(probabilities.max().item(), abs=1e-6)


def test_the_batch_size_changes_nothing(model: TimeSformer, video: Path) -> None:
    results = [predict(model, video, batch_size=size) for size in (1, 4, None)]
    for result in results[1:]:
        assert [score.label for score in result.top] == [score.label for score in results[0].top]
        assert [score.probability for score in result.top] == pytest.approx(
            [score.probability for score in results[0].top], abs=1e-6
        )


def test_several_files_come_back_in_their_order(model: TimeSformer, video: Path, tmp_path: Path) -> None:
    other = write_video(tmp_path / "other.mp4", frames=20)
    results = predict(model, (str(path) for path in (other, video)))
    assert [result.path for result in results] == [str(other), str(video)]
    assert results == [predict(model, other), predict(model, video)]
    assert predict(model, []) == []


def test_a_bad_file_is_an_error_or_left_out_as_the_caller_says(model: TimeSformer, video: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.mp4"
    bad.write_text("not a video")
    with pytest.raises(VideoReadError, match=r"bad\.mp4"):
        predict(model, [video, bad])
    with pytest.raises(VideoReadError, match=r"bad\.mp4"):
        predict(model, bad)
    errors: list[VideoReadError] = []
    results = predict(model, [bad, video, tmp_path / "missing.mp4"], errors=errors)
    assert [result.path for result in results] == [str(video)]
    assert [error_path in str(error) for error, error_path in zip(errors, ("bad.mp4", "missing.mp4"), strict=True)]


def test_the_model_is_left_as_it_was(model: TimeSformer, video: Path, tmp_path: Path) -> None:
    model.train()
    model.blocks[0].eval()  # as a half-frozen model has it
    modes = [module.training for module in model.modules()]
    first = predict(model, video)
    assert [module.training for module in model.modules()] == modes
    with pytest.raises(VideoReadError):
        predict(model, tmp_path / "missing.mp4")
    assert [module.training for module in model.modules()] == modes
    assert predict(model.eval(), video) == first
    assert all(parameter.grad is None for parameter in model.parameters())


def test_dropout_is_off_whatever_the_mode(video: Path) -> None:
    model = tiny(drop_rate=0.9, clip={"stride": 4}).train()
    assert predict(model, video) == predict(model, video)


def test_a_model_of_less_precision(model: TimeSformer, video: Path) -> None:
    full = predict(model, video, 1).top[0].probability
    assert predict(model.to(torch.bfloat16), video, 1).top[0].probability == pytest.approx(full, abs=0.05)


def test_a_name_is_loaded(model: TimeSformer, video: Path, tmp_path: Path) -> None:
    save_pretrained(model, tmp_path / "saved")
    assert predict(f"local-dir:{tmp_path / 'saved'}", video) == predict(model, video)


def test_other_labels(model: TimeSformer, video: Path) -> None:
    own = ["v", "w", "x", "y", "z"]
    prediction = predict(model, video, labels=own)
    assert [score.label for score in prediction.top] == [own[score.class_index] for score in prediction.top]


@pytest.mark.parametrize(("topk", "count"), [(1, 1), (3, 3), (50, 5)])
def test_topk(model: TimeSformer, video: Path, topk: int, count: int) -> None:
    probabilities = [score.probability for score in predict(model, video, topk).top]
    assert len(probabilities) == count
    assert probabilities == sorted(probabilities, reverse=True)


@pytest.mark.parametrize(
    ("changes", "arguments", "message"),
    [
        ({}, {"topk": 0}, "topk is 0, expected a whole number from 1 up"),
        ({}, {"clips": 0}, "clips is 0"),
        ({}, {"labels": ["a"]}, "Got 1 labels for 5 classes"),
        ({"num_classes": 0}, {}, "no head"),
        ({"global_pool": "frame"}, {}, "for each frame"),
        ({"global_pool": ""}, {}, "or token"),
    ],
)
def test_what_makes_no_sense_is_refused(changes, arguments, message: str, video: Path) -> None:
    with pytest.raises(ValueError, match=message):
        predict(tiny(**changes), video, **arguments)


def test_only_a_timesformer_is_taken(video: Path) -> None:
    with pytest.raises(TypeError, match="got Linear"):
        predict(torch.nn.Linear(1, 1), video)  # type: ignore[arg-type]


# ---- windows ----


def window(video: Path, spec: ClipSpec, start: int, length: int) -> torch.Tensor:
    file = Video(video)
    return crop_views(file.frames([start + i for i in frame_indices(spec, length, file.fps)]), spec)


def test_windows_cover_the_video_and_each_is_what_its_frames_say(model: TimeSformer, video: Path) -> None:
    # A clip of 4 frames, 4 apart at 30 a second, is 13.3 frames of this video; 60 of them are 4 windows and a rest.
    starts = [0, 13, 26, 39, 47]
    predictions = list(predict_windows(model, video))
    assert [prediction.start for prediction in predictions] == pytest.approx([start / 25 for start in starts])
    assert [prediction.end for prediction in predictions] == pytest.approx([(start + 13) / 25 for start in starts])
    for prediction, start in zip(predictions, starts, strict=True):
        probabilities = expected(window(video, clip_spec(model), start, 13), model, "logits")
        assert prediction.top[0].class_index == probabilities.argmax()
        assert prediction.top[0].probability == pytest.approx(probabilities.max().item(), abs=1e-6)


@pytest.mark.parametrize("batch_size", [1, 7])
def test_windows_do_not_depend_on_the_batch(model: TimeSformer, video: Path, batch_size: int) -> None:
    for one, other in zip(
        predict_windows(model, video), predict_windows(model, video, batch_size=batch_size), strict=True
    ):
        assert (one.start, one.end) == (other.start, other.end)
        assert [score.probability for score in one.top] == pytest.approx(
            [score.probability for score in other.top], abs=1e-6
        )


def test_length_and_step_of_windows_in_seconds(model: TimeSformer, video: Path) -> None:
    predictions = list(predict_windows(model, video, window=1.0, step=0.5, crops=1))
    assert [(p.start, p.end) for p in predictions] == [(0.0, 1.0), (0.5 - 0.02, 1.48), (0.96, 1.96), (1.4, 2.4)]
    spec = ClipSpec(num_frames=4, size=(32, 32), sampling="uniform", crops=1)  # from all of the window
    probabilities = expected(window(video, spec, 35, 25), model, "logits")
    assert predictions[-1].top[0].probability == pytest.approx(probabilities.max().item(), abs=1e-6)


def test_a_short_video_is_one_window(model: TimeSformer, tmp_path: Path) -> None:
    short = write_video(tmp_path / "short.mp4", frames=5)
    (prediction,) = predict_windows(model, short)
    assert (prediction.start, prediction.end) == (0.0, 0.2)
    probabilities = expected(window(short, clip_spec(model), 0, 5), model, "logits")
    assert prediction.top[0].probability == pytest.approx(probabilities.max().item(), abs=1e-6)


def test_a_model_of_whole_videos_needs_a_length(video: Path) -> None:
    model = tiny(clip={"sampling": "uniform"})
    with pytest.raises(ValueError, match="give the window's length"):
        predict_windows(model, video)
    assert len(list(predict_windows(model, video, window=1.2))) == 2


@pytest.mark.parametrize("wrong", [{"window": 0.0}, {"step": -1.0}])
def test_windows_have_a_length_and_move_on(model: TimeSformer, video: Path, wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="expected a positive number of seconds"):
        predict_windows(model, video, **wrong)  # type: ignore[arg-type]


def test_of_too_many_windows_some_are_taken_evenly(model: TimeSformer, video: Path) -> None:
    all_of_them = list(predict_windows(model, video, step=0.04))
    some = list(predict_windows(model, video, step=0.04, max_windows=3))
    assert len(all_of_them) == 48
    assert [window.start for window in some] == [all_of_them[i].start for i in (8, 24, 40)]
    assert list(predict_windows(model, video, max_windows=5)) == list(predict_windows(model, video))
    with pytest.raises(ValueError, match="max_windows is 0"):
        predict_windows(model, video, max_windows=0)


# ---- segments ----


def said(label: str, probability: float, start: float | None, end: float | None) -> Prediction:
    return Prediction("film.mp4", (Score(label, probability, 0),), start, end, 10.0)


def test_neighbours_with_the_same_label_are_joined() -> None:
    # The last two overlap by 1 s; between the third and the fourth is a gap of 2 s.
    windows = [("pan", 0.9, 0, 2), ("pan", 0.5, 2, 4), ("cut", 0.6, 4, 6), ("pan", 0.4, 8, 10), ("tilt", 0.8, 9, 11)]
    found = segments(said(*window) for window in windows)
    assert [(s.start, s.end, s.label, s.windows) for s in found] == [
        (0, 4, "pan", 2),
        (4, 7, "cut", 1),
        (7, 9.5, "pan", 1),
        (9.5, 11, "tilt", 1),
    ]
    assert [segment.probability for segment in found] == pytest.approx([0.7, 0.6, 0.4, 0.8])
    assert [segment.unclear for segment in found] == [False, False, True, False]
    assert found[0].to_dict() == {
        "start": 0,
        "end": 4,
        "label": "pan",
        "probability": pytest.approx(0.7),
        "windows": 2,
        "unclear": False,
    }
    assert segments([]) == []


def test_segments_are_of_windows(model: TimeSformer, video: Path) -> None:
    found = segments(predict_windows(model, video))
    assert sum(segment.windows for segment in found) == 5
    assert (found[0].start, found[-1].end) == (0.0, 2.4)
    with pytest.raises(ValueError, match="no start and end"):
        segments([said("pan", 0.9, None, None)])
