"""Features of videos in a library, and what is found in it, by the public calls."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from shutil import copy, rmtree
from typing import Any

import numpy as np
import pytest
import torch
from small_models import tiny
from videos import write_video

from timesformer_zoo import (
    FrameFolder,
    Library,
    OutputError,
    TimeSformer,
    Video,
    VideoReadError,
    clip_spec,
    crop_views,
    embed,
    frame_indices,
    load_views,
    predict_windows,
    save_pretrained,
    search,
)

MODEL = dict(stride=4, clips=2, crops=3)


@pytest.fixture(scope="module")
def model() -> TimeSformer:
    return tiny(clip=MODEL)


@pytest.fixture(scope="module")
def name(model: TimeSformer, tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_pretrained(model, tmp_path_factory.mktemp("models") / "mine"))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three of 60, 90 and 40 frames, at 25, 30 and 10 a second."""
    folder = tmp_path_factory.mktemp("files")
    sizes = {"a": (60, 25), "b": (90, 30), "c": (40, 10)}
    return [write_video(folder / f"{name}.mp4", frames, fps=fps) for name, (frames, fps) in sizes.items()]


@pytest.fixture(scope="module")
def library(name: str, files: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Library:
    return embed(name, files, tmp_path_factory.mktemp("libraries") / "library", dtype="float32")


def head_sees(model: TimeSformer, views: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model.forward_head(model.forward_features(views), pre_logits=True)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != ".lock"}


# ---- what a row is ----


def test_a_clips_row_is_what_the_head_sees_of_its_crops(model: TimeSformer, files: list[Path], tmp_path: Path) -> None:
    views = load_views(files[1], model)  # 2 clips of 3 crops
    expected = head_sees(model, views).unflatten(0, (2, 3)).mean(1)
    by_clip = embed(model, [files[1]], tmp_path / "clips", per="clip", dtype="float32")
    torch.testing.assert_close(by_clip.features, expected)
    # A clip is 16 frames at 30 a second; the second of two starts in the middle of the slack.
    assert by_clip.times.flatten().tolist() == pytest.approx([0, 16 / 30, 37 / 30, 53 / 30])
    whole = embed(model, [files[1]], tmp_path / "videos", per="video", dtype="float32")
    torch.testing.assert_close(whole.features, expected.mean(0, keepdim=True))
    assert whole.times.tolist() == [[0, pytest.approx(53 / 30)]]


def test_a_windows_row_is_what_the_head_sees_of_it(model: TimeSformer, files: list[Path], tmp_path: Path) -> None:
    found = embed(model, [files[0]], tmp_path / "out", step=0.4, crops=1, dtype="float32")
    spec = clip_spec(tiny(clip={**MODEL, "crops": 1}))
    video = Video(files[0])
    starts = [
        round(window.start * 25) for window in predict_windows(model, files[0], step=0.4) if window.start is not None
    ]
    length = round(16 / 30 * 25)
    views = [
        crop_views(iter(video.frames([start + i for i in frame_indices(spec, length, 25)])), spec) for start in starts
    ]
    torch.testing.assert_close(found.features, head_sees(model, torch.cat(views)))
    assert found.times[:, 0].tolist() == pytest.approx([start / 25 for start in starts])


def test_a_model_that_goes_by_windows_has_their_mean_of_a_video(files: list[Path], tmp_path: Path) -> None:
    model = tiny(clip={**MODEL, "windows": True})
    windows = embed(model, files[:1], tmp_path / "windows", dtype="float32")
    whole = embed(model, files[:1], tmp_path / "videos", per="video", dtype="float32")
    torch.testing.assert_close(whole.features, windows.features.mean(0, keepdim=True))
    assert search(whole, files[0], model=model)[0].similarity == pytest.approx(1)


def test_a_model_without_a_head_has_the_same_features(model: TimeSformer, files: list[Path], tmp_path: Path) -> None:
    headless = tiny(clip=MODEL)
    headless.reset_classifier(0)
    features = [embed(m, files[:1], tmp_path / str(i)).features for i, m in enumerate((model, headless))]
    assert torch.equal(*features)
    assert features[0].dtype == torch.float16
    assert model.num_classes == 5  # it stays as it is
    assert isinstance(model.head, torch.nn.Linear)


def test_a_folder_of_frames_has_rows_with_the_models_time(
    model: TimeSformer, files: list[Path], tmp_path: Path
) -> None:
    from PIL import Image

    (tmp_path / "frames").mkdir()
    for number, frame in enumerate(Video(files[0]).frames(range(20))):
        Image.fromarray(frame.numpy()).save(tmp_path / "frames" / f"{number}.png")
    assert FrameFolder(tmp_path / "frames").fps is None
    library = embed(model, [tmp_path / "frames"], tmp_path / "out")
    assert library.times[-1].tolist() == pytest.approx([4 / 30, 20 / 30])
    with pytest.raises(VideoReadError, match="it has no frame rate, so a part of it has no time"):
        search(library, tmp_path / "frames", model=model, start=0.1)


# ---- what is found ----


def test_what_is_found_has_the_largest_cosines(library: Library) -> None:
    rows = library.features.double().numpy()
    query = rows[3] + 0.1 * rows[7]
    cosines = rows @ query / np.linalg.norm(rows, axis=1) / np.linalg.norm(query)
    found = library.search(query, 5)
    assert [match.row for match in found] == np.argsort(-cosines)[:5].tolist()
    assert [match.similarity for match in found] == pytest.approx(sorted(cosines)[:-6:-1], abs=1e-6)
    assert [match.path for match in found] == [library.path(match.row) for match in found]
    assert [[match.start, match.end] for match in found] == library.times[[match.row for match in found]].tolist()
    assert len(library.search(query, 1000)) == len(library)
    of_videos = library.search(query, 1000, one_per_video=True)
    best = [max(cosines[library.video == i]) for i in range(3)]
    assert [match.similarity for match in of_videos] == pytest.approx(sorted(best, reverse=True), abs=1e-6)
    assert len({match.path for match in of_videos}) == 3


def test_a_part_of_a_video_finds_itself(library: Library, files: list[Path]) -> None:
    start, end = library.times[4].tolist()
    assert library.path(4) == str(files[0])
    first, second = search(library, files[0], 2, start=start, end=end)
    assert (first.row, first.similarity) == (4, pytest.approx(1, abs=1e-5))
    assert second.similarity < 0.99999


def test_of_several_windows_their_mean_direction_is_asked_for(library: Library, files: list[Path]) -> None:
    rows = library.features[library.video == 0]
    expected = library.search(torch.nn.functional.normalize(rows, dim=1).mean(0))
    for part in ({}, {"start": 0}):
        found = search(library, files[0], **part)  # type: ignore[arg-type]
        assert [match.row for match in found] == [match.row for match in expected]
        assert [m.similarity for m in found] == pytest.approx([m.similarity for m in expected], abs=1e-6)


def test_of_equal_rows_the_first_comes_first(name: str, files: list[Path], tmp_path: Path) -> None:
    paths = [tmp_path / f"{letter}.mp4" for letter in "dacb"]
    for path in paths:
        copy(files[0], path)
    library = embed(name, paths, tmp_path / "out", per="video")
    assert [Path(match.path).name for match in search(library, files[0])] == ["a.mp4", "b.mp4", "c.mp4", "d.mp4"]


def test_a_query_may_be_a_feature(library: Library) -> None:
    assert search(library, library.features[2], 1)[0].row == 2
    with pytest.raises(ValueError, match=r"the query's shape is \(7,\), expected \(32,\), the library's width"):
        search(library, torch.ones(7))
    with pytest.raises(ValueError, match="start and end are of a video"):
        search(library, library.features[2], start=1)


@pytest.mark.parametrize("name", ["faiss", "usearch"])
@pytest.mark.filterwarnings("ignore:builtin type:DeprecationWarning")  # SWIG's
def test_an_index_finds_what_looking_at_all_does(name: str, tmp_path: Path) -> None:
    pytest.importorskip(name, reason="needs timesformer-zoo[search]")
    from timesformer_zoo.retrieval.parts import Manifest, VideoRows, write_manifest, write_part

    generator = torch.Generator().manual_seed(0)
    videos = [
        VideoRows({"path": f"{i}.mp4", "version": ""}, torch.zeros(20, 2, dtype=torch.float64), rows + rows.mean(0))
        for i, rows in enumerate(torch.randn(100, 20, 24, generator=generator))
    ]
    names = [write_part(tmp_path, half, {}) for half in (videos[:50], videos[50:])]
    write_manifest(tmp_path, Manifest(None, {"width": 24, "per": "window"}, {}, names))
    library = Library.open(tmp_path)
    shared = []
    for row in range(0, 2000, 150):
        for options in ({}, {"one_per_video": True}):
            query = library.features[row]
            found = library.search(query, 10, index=name, **options)
            all_of_them = {match.row: match for match in library.search(query, 2000, **options)}
            assert found[0].row == row
            assert len({match.path for match in found}) == len(found) or not options
            for match in found:  # their similarities are exact
                if match.row in all_of_them:
                    assert match.similarity == pytest.approx(all_of_them[match.row].similarity, abs=1e-6)
            shared.append(len({match.row for match in found} & set(list(all_of_them)[:10])))
    assert sum(shared) >= 9 * len(shared)
    (before,) = tmp_path.glob(f"index-{name}-*")
    write_manifest(tmp_path, Manifest(None, {"width": 24, "per": "window"}, {}, names[1:]))
    assert Library.open(tmp_path).search(library.features[1000], 1, index=name)[0].row == 0
    (after,) = tmp_path.glob(f"index-{name}-*")  # a library that has changed has another
    assert after != before


# ---- again, and changed ----


def test_again_only_what_is_new_or_changed_is_done(
    name: str, files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from timesformer_zoo.retrieval.encoder import PER

    done: list[str] = []
    windows = PER["window"]

    def noted(encoder: Any, path: Any) -> Any:
        done.append(Path(path).name)
        return windows(encoder, path)

    monkeypatch.setitem(PER, "window", noted)  # type: ignore[arg-type]
    paths = [tmp_path / path.name for path in files]
    copy(files[0], paths[0])
    copy(files[1], paths[1])
    out = tmp_path / "out"
    first = embed(name, paths, out)
    assert done == ["a.mp4", "b.mp4", "c.mp4"]
    assert {about["path"]: "error" in about for about in first.videos} == dict(
        zip(map(str, paths), (False, False, True), strict=True)
    )
    before = contents(out)
    embed(name, paths, out)
    assert done[3:] == []
    assert contents(out) == before
    copy(files[2], paths[2])  # is there now
    copy(files[2], paths[0])  # is another now
    paths[1].unlink()  # is gone, and not asked for
    second = embed(name, [paths[0], paths[2]], out)
    assert sorted(done[3:]) == ["a.mp4", "c.mp4"]
    whole = embed(name, [paths[0], paths[2]], tmp_path / "whole")
    assert not any("error" in about for about in second.videos)
    by_name = {Path(second.path(row)).name: second.features[row] for row in range(len(second))}
    assert torch.equal(by_name["a.mp4"], by_name["c.mp4"])
    assert len(second) == len(whole) + sum(first.path(row) == str(paths[1]) for row in range(len(first)))


def test_errors_are_tried_again_when_asked(name: str, video: Path, tmp_path: Path, monkeypatch: Any) -> None:
    from timesformer_zoo.retrieval import encoder

    def busy(*arguments: Any, **options: Any) -> Any:
        raise VideoReadError("the server is busy")

    with monkeypatch.context() as patch:
        patch.setattr(encoder, "predict_windows", busy)
        assert embed(name, [video], tmp_path).videos[0]["error"] == "the server is busy"
    assert len(embed(name, [video], tmp_path)) == 0
    assert len(embed(name, [video], tmp_path, retry_errors=True)) > 0


def test_a_library_does_not_depend_on_the_order_or_on_how_often_it_was_added_to(
    name: str, files: list[Path], tmp_path: Path
) -> None:
    embed(name, files, tmp_path / "at once")
    for path in reversed(files):
        embed(name, [path], tmp_path / "one by one")
    assert contents(tmp_path / "at once") == contents(tmp_path / "one by one")


def test_a_removed_part_is_done_anew(name: str, files: list[Path], tmp_path: Path) -> None:
    before = contents(embed(name, files, tmp_path).folder)
    (part,) = tmp_path.glob("part-*")
    part.unlink()
    with pytest.raises(OutputError, match="this part of the library is missing; run embed again"):
        Library.open(tmp_path)
    assert contents(embed(name, files, tmp_path).folder) == before


def test_large_libraries_have_several_parts(name: str, files: list[Path], tmp_path: Path, monkeypatch: Any) -> None:
    from timesformer_zoo.retrieval import writer

    whole = embed(name, files, tmp_path / "one")
    monkeypatch.setattr(writer, "_ROWS", 6)
    library = embed(name, files, tmp_path / "several")
    assert len(library.parts) > 1
    assert torch.equal(library.features.sort(0).values, whole.features.sort(0).values)
    for match in library.search(library.features[-1], 1000):
        assert library.path(match.row) == match.path
        assert library.videos[int(library.video[match.row])]["path"] == match.path
    assert contents(embed(name, files, tmp_path / "several").folder) == contents(tmp_path / "several")


# ---- two models never mix ----


def test_another_model_or_sampling_is_refused(name: str, library: Library, files: list[Path], tmp_path: Path) -> None:
    out = library.folder
    other = tiny("joint", clip=MODEL)
    for model, options, said in [
        (other, {}, "digest of the model"),
        (tiny(clip={**MODEL, "stride": 2}), {}, "sampling"),
        (name, {"step": 0.1}, "step None, not 0.1"),
        (name, {"per": "video"}, "per 'window', not 'video'"),
    ]:
        with pytest.raises(OutputError, match="holds rows of other settings") as error:
            embed(model, files, out, dtype="float32", **options)
        assert said in str(error.value)
        assert "\n" not in str(error.value)
    with pytest.raises(OutputError, match="was made by another model: digest of the model"):
        search(library, files[0], model=other)


def test_the_same_weights_elsewhere_are_the_same_model(
    name: str, model: TimeSformer, files: list[Path], tmp_path: Path
) -> None:
    save_pretrained(model, tmp_path / "old")
    library = embed(tmp_path / "old", files[:1], tmp_path / "library")
    (tmp_path / "old").rename(tmp_path / "new")
    with pytest.raises(ValueError, match="old"):
        search(library, files[0])
    assert search(library, files[0], 1, model=tmp_path / "new") == search(library, files[0], 1, model=model)
    assert embed(tmp_path / "new", files[:1], tmp_path / "library").model == str(tmp_path / "new")
    # Trained anew under its name, it is another; with a new head alone it is not.
    changed = tiny(clip=MODEL)
    torch.nn.init.zeros_(changed.head.weight)
    save_pretrained(changed, tmp_path / "new")
    assert search(tmp_path / "library", files[0])
    torch.nn.init.zeros_(changed.norm.bias)
    save_pretrained(changed, tmp_path / "new")
    with pytest.raises(OutputError, match="was made by another model"):
        search(tmp_path / "library", files[0])


def test_of_a_model_without_a_name_it_is_asked(model: TimeSformer, files: list[Path], tmp_path: Path) -> None:
    library = embed(model, files[:1], tmp_path)
    with pytest.raises(ValueError, match="does not say which model made it, as it had no name: give the model"):
        search(library, files[0])


# ---- what can go wrong ----


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda folder: rmtree(folder), "there is no library (no library.json); make one by embed"),
        (lambda folder: (folder / "library.json").write_text("{"), "library.json is damaged (JSONDecodeError"),
        (lambda folder: (folder / "library.json").write_text('{"format": "x"}'), "its format is 'x', expected"),
        (lambda folder: (folder / "library.json").write_text("[]"), "library.json is damaged (TypeError"),
        (lambda folder: os.truncate(next(folder.glob("part-*")), 2000), "this part of the library is damaged"),
        (lambda folder: os.truncate(next(folder.glob("part-*")), 0), "this part of the library is damaged"),
        (lambda folder: next(folder.glob("part-*")).unlink(), "this part of the library is missing"),
    ],
)
def test_a_damaged_library_is_said_in_one_line(
    spoil: Callable[[Path], object], said: str, library: Library, files: list[Path], tmp_path: Path
) -> None:
    folder = tmp_path / "library"
    folder.mkdir()
    for path, content in contents(library.folder).items():
        (folder / path).write_bytes(content)
    spoil(folder)
    with pytest.raises(OutputError) as error:
        search(folder, files[0])
    assert said in str(error.value)
    assert str(folder) in str(error.value)
    assert "\n" not in str(error.value)


def test_of_another_width_it_is_no_part(library: Library, tmp_path: Path) -> None:
    for path, content in contents(library.folder).items():
        (tmp_path / path).write_bytes(content)
    manifest = json.loads((tmp_path / "library.json").read_text())
    manifest["settings"]["width"] = 768
    (tmp_path / "library.json").write_text(json.dumps(manifest))
    with pytest.raises(OutputError, match="its rows are of another width than 768"):
        Library.open(tmp_path)


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"topk": 0}, ValueError, "topk is 0"),
        ({"index": "annoy"}, ValueError, "index is 'annoy', expected one of exact, faiss, usearch"),
        ({"start": 2, "end": 1}, ValueError, "start is 2 and end 1"),
        ({"start": -1}, ValueError, "start is -1"),
        ({"start": 100}, VideoReadError, "it ends at 2.4 s, before the part from 100 s"),
    ],
)
def test_a_call_that_makes_no_sense(
    options: dict[str, Any], error: type[Exception], said: str, library: Library, files: list[Path]
) -> None:
    with pytest.raises(error) as raised:
        search(library, files[0], **options)
    assert said in str(raised.value)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"per": "frame"}, "per is 'frame', expected one of window, clip, video"),
        ({"per": "clip", "step": 1}, "step is 1, which has no meaning per clip"),
        ({"clips": 2}, "clips is 2, which has no meaning per window"),
        ({"window": 0}, "window is 0, expected a positive number"),
        ({"dtype": "int8"}, "dtype is 'int8', expected one of float16, float32"),
        ({"engine": "spark"}, "engine 'spark' is not known"),
    ],
)
def test_an_embedding_that_makes_no_sense(options: dict[str, Any], said: str, name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=said):
        embed(name, [], tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_an_empty_library_has_nothing_to_find(name: str, files: list[Path], tmp_path: Path) -> None:
    library = embed(name, [], tmp_path)
    assert (len(library), library.features.shape, library.times.shape) == (0, (0, 32), (0, 2))
    with pytest.raises(OutputError, match="the library has no rows; add videos by embed"):
        search(library, files[0])


def test_nothing_secret_is_kept_and_a_rerun_knows_addresses_again(name: str, tmp_path: Path) -> None:
    address = "memory://me:hunter2@host/a.mp4?token=hunter3"
    (about,) = embed(name, [address], tmp_path).videos
    assert about["path"] == "memory://***@host/a.mp4?…"
    before = contents(tmp_path)
    assert not any(b"hunter" in content for content in before.values())
    embed(name, [address.replace("hunter2", "another")], tmp_path)
    assert contents(tmp_path) == before
