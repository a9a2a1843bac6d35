"""A folder per class: how splits are called, and what is no class."""

from pathlib import Path

import pytest

from timesformer_zoo import AnnotationError, VideoList, read_videos
from timesformer_zoo.data.index import VideoIndex


def touch(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def names(videos: VideoList) -> list[str]:
    return [f"{videos.classes[sample.target]}/{Path(sample.path).name}" for sample in videos.samples]


@pytest.mark.parametrize(
    ("train", "other", "split"),
    [
        ("Train", "Val", "val"),
        ("Training", "Validation", "val"),
        ("TRAIN", "TEST", "test"),
        ("train", "dev", "val"),
        ("train", "eval", "test"),
        ("videos_train", "videos_val", "val"),
        ("train_256", "val_256", "val"),
        ("Training Set", "Testing Set", "test"),
    ],
)
def test_folders_of_splits_are_known_by_many_names(train: str, other: str, split: str, tmp_path: Path) -> None:
    touch(tmp_path, f"{train}/run/a.mp4", f"{train}/sit/b.mp4", f"{other}/run/c.mp4")
    assert names(read_videos("folder", tmp_path)) == ["run/a.mp4", "sit/b.mp4"]
    assert names(read_videos("folder", tmp_path, split)) == ["run/c.mp4"]


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        (["train/run/a.mp4", "training/run/b.mp4"], "'train' and 'training' both mean train; expected one"),
        (
            ["train/a.mp4", "val/run/b.mp4"],
            "'train' is called as a split and holds videos; expected class folders in it",
        ),
        (["train/a.mp4", "val/b.mp4"], "'train' is called as a split and holds videos"),
        (["Train/run/a.mp4", "TEST/run/b.mp4"], "'TEST', 'Train'.*none for 'val'; expected one called val or valid"),
        (
            ["data/train/run/a.mp4", "data/val/run/b.mp4"],
            "its only folder holds folders of splits; give .*data as the root",
        ),
    ],
)
def test_what_is_ambiguous_is_said(paths: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(AnnotationError, match=message):
        read_videos("folder", touch(tmp_path, *paths), "val")


def test_a_class_may_be_called_as_a_split(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{name}/{i}.mp4" for name in ("bus", "car", "train") for i in range(2)))
    assert read_videos("folder", tmp_path).classes == ("bus", "car", "train")
    touch(tmp_path / "frames", "bus/a/1.jpg", "train/b/1.jpg")
    assert read_videos("folder", tmp_path / "frames").classes == ("bus", "train")


@pytest.mark.parametrize("inside", [(), ("notes.txt",), ("0001.jpg", "0002.jpg")])
def test_a_class_folder_without_a_video_is_an_error(inside: tuple[str, ...], tmp_path: Path) -> None:
    """As in torchvision's ImageFolder: a class more or less moves the indices of the others."""
    touch(tmp_path, "run/a.mp4", "sit/b.mp4")
    (tmp_path / "empty").mkdir()
    touch(tmp_path / "empty", *inside)
    with pytest.raises(
        AnnotationError, match=rf"empty: no video in this class folder, only {', '.join(inside) or 'nothing'}"
    ):
        read_videos("folder", tmp_path)


def test_what_is_not_read_is_reported(tmp_path: Path) -> None:
    touch(tmp_path, "train/run/a.mp4", "train/loose.mp4.txt", "val/run/b.mp4", "labels/names.txt", "c.mp4")
    report = read_videos("folder", tmp_path).report()
    assert "beside the folders of splits, and not read: labels" in report
    assert "1 video in no class folder, and not read" in report
    assert "not read" not in read_videos("folder", tmp_path / "train").report()


# --- which folders are videos


def found(root: Path) -> list[str]:
    return [str(Path(path).relative_to(root)) for path in VideoIndex(root).paths]


def test_a_picture_beside_videos_is_no_video(tmp_path: Path) -> None:
    touch(tmp_path, "run/a.mp4", "run/cover.jpg", "run/b.mp4", "sit/Thumbs.db", "sit/1.jpg", "sit/._1.jpg")
    assert found(tmp_path) == ["run/a.mp4", "run/b.mp4", "sit"]


def test_pictures_beside_folders_of_videos_are_refused(tmp_path: Path) -> None:
    touch(tmp_path, "run/1.jpg", "run/more/a.mp4")
    with pytest.raises(AnnotationError, match="run: it holds pictures, as a folder of frames does, and videos in more"):
        found(tmp_path)


def test_mac_files_and_links_to_parents_do_not_count(tmp_path: Path) -> None:
    touch(tmp_path, "run/a.mp4", "run/._a.mp4", "frames/._1.jpg", "frames/1.jpg")
    (tmp_path / "run/round").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "linked").symlink_to(tmp_path / "frames", target_is_directory=True)
    assert found(tmp_path) == ["frames", "linked", "run/a.mp4"]
