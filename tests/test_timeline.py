"""`timeline` and `predict_windows` over long, interrupted and damaged videos, against the same windows one by one."""

import json
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from small_models import tiny
from videos import write_video

from timesformer_zoo import (
    Gap,
    Prediction,
    Score,
    TimeSformer,
    Video,
    VideoReadError,
    clip_spec,
    crop_views,
    frame_indices,
    predict_windows,
    segments,
    set_labels,
    smooth,
    timeline,
)

LABELS = ["run", "jump", "sit", "stand", "fall"]


@pytest.fixture
def model() -> TimeSformer:
    model = tiny(clip={"stride": 4, "crops": 1})
    with torch.no_grad():
        model.head.weight.mul_(200)  # so that it is sure of something
    set_labels(model, LABELS)
    return model.eval()


@pytest.fixture
def changing(model: TimeSformer, long: Path) -> TimeSformer:
    """A model that gives the video more than one label."""
    file = Video(long)
    clips = [crop_views(file.frames([i, i + 4, i + 8, i + 12]), clip_spec(model)) for i in range(0, 180, 10)]
    with torch.no_grad():
        model.head.bias.sub_(model(torch.cat(clips)).mean(0))
    return model


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """200 frames, 25 a second, a key frame every 20; so large that not all pixels count."""
    path = tmp_path_factory.mktemp("long") / "long.mp4"
    return write_video(path, 200, height=128, width=192, **{"x264-params": "keyint=20:bframes=0"})


@pytest.fixture(scope="module")
def damaged(long: Path) -> Path:
    """Of the same video the packets of frames 85 to 90 are zeros; up to frame 99, the others lean on them."""
    data = bytearray(long.read_bytes())
    import av

    with av.open(str(long)) as file:
        packets = [(p.pos, p.size) for p in file.demux(video=0) if p.size]
    for place, size in packets[85:91]:
        data[place + 4 : place + size] = bytes(size - 4)
    path = long.with_name("damaged.mp4")
    path.write_bytes(data)
    return path


def said_of(model: TimeSformer, video: Path, start: int, length: int) -> torch.Tensor:
    file, spec = Video(video), clip_spec(model)
    views = crop_views(file.frames([start + i for i in frame_indices(spec, length, file.fps)]), spec)
    with torch.no_grad():
        return model(views).softmax(1)[0]


# ---- reading ----


@pytest.mark.parametrize("step", [0.12, 0.28, 0.52, 1.2])
def test_each_frame_is_read_once_and_each_window_is_what_its_frames_say(
    model: TimeSformer, long: Path, step: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    stream = Video.stream

    def noted(video: Video, indices: Any, pixels: Any) -> Iterator[torch.Tensor]:
        for index, frame in zip(sorted(set(indices)), stream(video, indices, pixels), strict=True):
            read.append(index)
            yield frame

    with monkeypatch.context() as patch:
        patch.setattr(Video, "stream", noted)
        windows = list(predict_windows(model, long, step=step, batch_size=4))
    needed = {round((w.start or 0) * 25) + i for w in windows for i in frame_indices(clip_spec(model), 13, 25.0)}
    assert read == sorted(needed)
    for window in windows:
        expected = said_of(model, long, round((window.start or 0) * 25), 13)
        assert window.top[0].class_index == expected.argmax()
        assert window.top[0].probability == pytest.approx(expected.max().item(), abs=1e-5)


def test_what_cannot_be_read_is_told_and_the_rest_is_what_it_is_elsewhere(
    model: TimeSformer, long: Path, damaged: Path
) -> None:
    whole = {window.start: window for window in predict_windows(model, long, step=0.2, batch_size=3)}
    errors: list[VideoReadError] = []
    left = list(predict_windows(model, damaged, step=0.2, batch_size=3, errors=errors))
    (error,) = errors
    assert "damaged.mp4: 3.40 to 4.00 s can't be read: " in str(error)
    # Windows have 13 frames, of which the last that is seen is the 13th.
    lost = [start for start in whole if round(start * 25) + 12 >= 85 and round(start * 25) < 100]  # type: ignore[operator]
    assert sorted(whole.keys() - {window.start for window in left}) == lost  # type: ignore[type-var]
    for window in left:
        assert window.top[0].probability == pytest.approx(whole[window.start].top[0].probability, abs=1e-5)
        assert window.top[0].label == whole[window.start].top[0].label
    with pytest.raises(VideoReadError, match=r"damaged\.mp4: 3\.40 to"):
        list(predict_windows(model, damaged, step=0.2))


def test_a_file_that_is_lost_to_its_end_is_not_tried_for_ever(model: TimeSformer) -> None:
    class Broken:
        path, num_frames, fps = "film.mp4", 100_000, 25.0
        tries = 0

        def stream(self, indices: Any, pixels: Any = None) -> Iterator[torch.Tensor]:
            for index in indices:
                if index >= 1000:
                    self.tries += 1
                    raise VideoReadError("film.mp4: a part of its video can't be decoded; re-encode it")
                yield torch.zeros(64, 64, 3, dtype=torch.uint8)

        def close(self) -> None:
            pass

    video, errors = Broken(), []
    windows = list(predict_windows(model, video, errors=errors))  # type: ignore[arg-type, var-annotated]
    assert [window.end for window in windows][-1] == pytest.approx(1000 / 25, abs=0.6)
    (error,) = errors
    assert "film.mp4: 40.00 to 4000.00 s can't be read: a part of" in str(error)
    assert video.tries < 100


def test_a_timeline_has_a_gap_there(model: TimeSformer, damaged: Path, tmp_path: Path) -> None:
    made = timeline(model, damaged, step=0.2, smoothing=1.0)
    (gap,) = made.gaps
    assert (gap.start, gap.end) == (3.4, 4.0)
    assert all(part.end <= gap.start or part.start >= gap.end for part in made.segments)
    made.save(tmp_path / "t.csv")
    assert sum("can't be read" in line for line in (tmp_path / "t.csv").read_text().splitlines()) == 1
    made.save(tmp_path / "t.html")
    assert "3.40 to 4.00 s can" in (tmp_path / "t.html").read_text("utf-8")


def test_a_video_of_which_nothing_can_be_read_is_an_error(model: TimeSformer, long: Path, tmp_path: Path) -> None:
    data = long.read_bytes()
    at = data.index(b"mdat")
    end = data.index(b"moov") if b"moov" in data[at:] else len(data)
    (tmp_path / "bad.mp4").write_bytes(data[: at + 900] + bytes(end - at - 900) + data[end:])
    with pytest.raises(VideoReadError, match=r"bad\.mp4"):
        timeline(model, tmp_path / "bad.mp4")


# ---- segments ----


def said(start: float, **probabilities: float) -> Prediction:
    ranked = sorted(probabilities.items(), key=lambda item: -item[1])
    return Prediction("film.mp4", tuple(Score(k, v, "ab".index(k)) for k, v in ranked), start, start + 2)


def test_smoothing_is_the_mean_of_neighbours() -> None:
    windows = [said(0, a=0.9, b=0.1), said(1, a=0.3, b=0.7), said(2, a=0.8, b=0.2), said(3, a=0.6), said(4, b=1.0)]
    smoothed = smooth(windows, 2.0)  # middles within a second: one neighbour on each side
    means = [{score.label: score.probability for score in window.top} for window in smoothed]
    assert [mean["a"] for mean in means] == pytest.approx([0.6, 2 / 3, 1.7 / 3, 1.4 / 3, 0.3])
    assert means[3]["b"] == pytest.approx(0.4)  # what was not told counts as 0
    assert [window.top[0].label for window in smoothed] == ["a", "a", "a", "a", "b"]
    assert [(s.label, s.start, s.end) for s in segments(windows, smoothing=2.0)] == [("a", 0, 4.5), ("b", 4.5, 6)]
    assert len(segments(windows)) == 4
    assert smooth(windows, 0) == windows
    with pytest.raises(ValueError, match="smoothing is -1, expected seconds"):
        smooth(windows, -1)


def test_nothing_reaches_into_a_gap_or_over_it() -> None:
    windows = [said(0, a=1.0), said(1, a=1.0), said(6, a=1.0), said(7, b=1.0)]
    found = segments(windows, 20.0, [Gap(2.5, 6.25, "damaged")])
    assert [(s.label, s.start, s.end) for s in found] == [("a", 0, 2.5), ("a", 6.25, 9)]
    assert [s.probability for s in found] == [1.0, 0.5]  # each half's mean is of its own windows
    assert len(segments(windows)) == 2


# ---- going on ----


def test_a_rerun_goes_on_and_is_what_an_unbroken_run_is(model: TimeSformer, damaged: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = dict(step=0.12, batch_size=4)
    whole = timeline(model, damaged, **options)
    state = tmp_path / "state.jsonl"
    assert timeline(model, damaged, state=state, **options) == whole
    lines = state.read_bytes().splitlines(keepends=True)
    for count in range(0, len(lines) + 1, 5):
        cut = b"".join(lines[:count]) + (lines[count][:20] if count < len(lines) else b"")
        state.write_bytes(cut)
        new: list[bool] = []
        again = timeline(model, damaged, state=state, on_window=lambda _, is_new, to=new: to.append(is_new), **options)
        assert again == whole
        assert state.read_bytes() == b"".join(lines)
        assert new == sorted(new)
        assert new.count(False) >= count - 40  # at most a batch, and a gap, is done again


def test_a_frame_that_changed_in_a_folder_makes_it_another_video(model: TimeSformer, tmp_path: Path) -> None:
    frames, state = tmp_path / "frames", tmp_path / "state"
    frames.mkdir()
    for i in range(40):
        Image.new("RGB", (40, 40), (6 * i, 0, 0)).save(frames / f"{i:03}.png")
    timeline(model, frames, state=state)
    Image.new("RGB", (40, 40), (0, 200, 255)).save(frames / "020.png")
    with pytest.warns(UserWarning, match="it is of another video"):
        timeline(model, frames, state=state)


def test_of_something_else_nothing_is_taken_over(model: TimeSformer, long: Path, damaged: Path, tmp_path: Path) -> None:
    state = tmp_path / "state.jsonl"
    video = tmp_path / "video.mp4"
    video.write_bytes(long.read_bytes())
    first = timeline(model, video, state=state)
    assert timeline(model, video, smoothing=0, state=state).windows == first.windows  # smoothing comes after
    with pytest.warns(UserWarning, match="it is of another sampling; its windows are done anew"):
        timeline(model, video, step=0.4, state=state)
    video.write_bytes(damaged.read_bytes())
    with pytest.warns(UserWarning, match="it is of another video"):
        timeline(model, video, step=0.4, state=state)
    torch.nn.init.ones_(model.head.bias)
    with pytest.warns(UserWarning, match="it is of another model"):
        made = timeline(model, video, step=0.4, state=state)
    assert made == timeline(model, video, step=0.4)


# ---- files ----


class Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def test_each_format_has_every_segment(changing: TimeSformer, long: Path, tmp_path: Path) -> None:
    made = timeline(changing, long, step=0.2, smoothing=0)
    assert len(made.segments) > 1
    for suffix in ("json", "jsonl", "csv", "html", "png"):
        made.save(tmp_path / f"t.{suffix}")
    assert json.loads((tmp_path / "t.json").read_text("utf-8")) == json.loads(json.dumps(made.to_dict()))
    rows = [json.loads(line) for line in (tmp_path / "t.jsonl").read_text("utf-8").splitlines()]
    assert rows == [{"path": str(long), **segment.to_dict()} for segment in made.segments]
    head, *lines = (tmp_path / "t.csv").read_text("utf-8").splitlines()
    assert head.startswith("path,start,end,label,probability")
    assert [line.split(",")[3] for line in lines] == [segment.label for segment in made.segments]
    page = Page()
    page.feed((tmp_path / "t.html").read_text("utf-8"))
    assert sum(tag == "tr" for tag, _ in page.tags) == len(made.segments) + 1
    sources = [attributes["src"] or "" for tag, attributes in page.tags if "src" in attributes]
    assert len(sources) == len(made.segments)
    assert all(source.startswith("data:image/jpeg;base64,") for source in sources)  # nothing from elsewhere
    with Image.open(tmp_path / "t.png") as picture:
        assert picture.width > 1000
    with pytest.raises(ValueError, match=r"t\.gif: a timeline is written as \.json, .*, got \.gif"):
        made.save(tmp_path / "t.gif")


def test_values_have_no_timeline(long: Path) -> None:
    model = tiny(clip={"stride": 4, "task": "regression"})
    with pytest.raises(ValueError, match="take predict_windows"):
        timeline(model, long)
