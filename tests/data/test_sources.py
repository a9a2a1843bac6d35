"""Where data lives: each source gives the same samples, and gives each once, whoever shares the work and whenever it
stopped, in training and in evaluation."""

import io
import json
import pickle
import tarfile
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import accumulate, chain
from pathlib import Path
from typing import Any

import fsspec
import pytest
import torch
from hub_server import HubServer
from small_models import tiny
from videos import write_video

from timesformer_zoo import (
    AnnotationError,
    ClipSpec,
    Item,
    Recipe,
    StepSampler,
    VideoDataset,
    VideoList,
    VideoReadError,
    evaluate,
    finetune,
    make_loader,
    read_dataset,
    read_shards,
    read_videos,
    save_pretrained,
)
from timesformer_zoo.data.order import order, seed_of
from timesformer_zoo.data.shards import expand
from timesformer_zoo.video import shards as tar_files
from timesformer_zoo_cli import main

SPEC = ClipSpec(num_frames=2, stride=2, size=(32, 32), crops=1)
COUNT, CLASSES = 11, ("jump", "run")


@pytest.fixture(autouse=True)
def _cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TIMESFORMER_ZOO_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder per class with videos that differ in length: 8, 9, 10 … frames."""
    path = tmp_path_factory.mktemp("clips")
    for name in CLASSES:
        (path / "train" / name).mkdir(parents=True)
    for i in range(COUNT):
        write_video(path / "train" / CLASSES[i % 2] / f"{i:02}.mp4", 8 + i, height=32, width=48)
    return path


@pytest.fixture(scope="module")
def files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.mp4"), key=lambda path: path.name)


def write_shards(folder: Path, files: list[Path], each: int = 3, label: str = "cls") -> list[Path]:
    """In the layout of webdataset's TarWriter, whose own are read in a test of their own."""
    paths = []
    for first in range(0, len(files), each):
        paths.append(folder / f"train-{first // each:06}.tar")
        with tarfile.open(paths[-1], "w", format=tarfile.USTAR_FORMAT) as tar:
            for path in files[first : first + each]:
                name = path.parent.name
                text = {"cls": name, "txt": name, "json": json.dumps({"label": name, "fps": 25})}[label]
                for suffix, data in (("mp4", path.read_bytes()), (label, text.encode())):
                    info = tarfile.TarInfo(f"{path.stem}.{suffix}")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
    return paths


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, folder: Path) -> Iterator[HubServer]:
    from huggingface_hub import HfFileSystem

    with HubServer() as server:
        server.connect(monkeypatch, tmp_path / "home")
        HfFileSystem.clear_instance_cache()
        server.repo("datasets/me/clips", folder)
        yield server
        HfFileSystem.clear_instance_cache()


def make_dataset(files: list[Path], kind: str) -> Any:
    datasets = pytest.importorskip("datasets")
    features = {"label": datasets.ClassLabel(names=list(CLASSES)), "video": datasets.Value("string")}
    columns = {"video": [str(p) for p in files], "label": [CLASSES.index(p.parent.name) for p in files]}
    if kind != "paths":
        features["video"] = datasets.Video(decode=False)
        columns["video"] = [{"path": p.name, "bytes": p.read_bytes()} for p in files]
    return datasets.Dataset.from_dict(columns, features=datasets.Features(features))


KINDS = ["folder", "list of http", "folder on hf", "shards", "shards on hf", "column of bytes", "column of paths"]


@pytest.fixture
def read(hub: HubServer, folder: Path, files: list[Path], tmp_path: Path) -> Callable[[str], VideoList]:
    def of(kind: str) -> VideoList:
        if kind == "folder":
            return read_videos("folder", folder)
        if kind == "list of http":
            address = f"{hub.endpoint}/datasets/me/clips/resolve/main"
            lines = [f"{address}/{path.relative_to(folder).as_posix()} {path.parent.name}" for path in files]
            (tmp_path / "train.txt").write_text("\n".join(lines))
            return read_videos("list", tmp_path)
        if kind == "folder on hf":
            return read_videos("folder", "hf://datasets/me/clips")
        if kind == "shards":
            return read_shards([str(path) for path in write_shards(tmp_path, files)], window=4)
        if kind == "shards on hf":
            hub.repo("datasets/me/shards", {path.name: path for path in write_shards(tmp_path, files)})
            return read_shards("hf://datasets/me/shards/train-*.tar", window=4)
        return read_dataset(make_dataset(files, kind.rpartition(" ")[2]))

    return of


def batches(videos: VideoList, stop: int, workers: int = 0, **options: Any) -> list[Any]:
    """Two samples a step, six steps an epoch."""
    sampler = StepSampler(COUNT, 2, stop=stop, shards=videos.shards, window=videos.window, **options)
    return list(make_loader(VideoDataset(videos, SPEC, training=True), sampler, workers=workers))


@pytest.mark.parametrize("kind", KINDS)
def test_each_sample_once_by_ranks_and_workers_and_after_a_stop(
    kind: str, read: Callable[[str], VideoList], files: list[Path], folder: Path
) -> None:
    videos = read(kind)
    assert videos.classes == CLASSES
    assert len(videos.samples) == COUNT
    assert not videos.missing
    # The samples are those of the files: each its frames, its class.
    local = {sample.path: sample for sample in read_videos("folder", folder).samples}
    dataset = VideoDataset(videos, SPEC)
    items: list[Item] = [dataset[i] for i in range(COUNT)]
    found = Counter((item.target.item(), item.clips.numpy().tobytes()) for item in items)  # type: ignore[union-attr]
    plain = VideoDataset(read_videos("folder", folder), SPEC)
    assert found == Counter((plain[i].target.item(), plain[i].clips.numpy().tobytes()) for i in range(len(local)))
    # An epoch over 3 ranks of 2 workers.
    ranks = [batches(videos, 6, workers=2, rank=rank, world=3) for rank in range(3)]
    assert sorted(chain(*(batch.indices.tolist() for rank in ranks for batch in rank))) == list(range(COUNT))
    # Stopped in mid-epoch: what is left, and the same clips.
    whole, rest = batches(videos, 8), batches(videos, 8, start=4)
    assert len(rest) == 4
    for a, b in zip(whole[4:], rest, strict=True):
        assert torch.equal(a.clips, b.clips)
    # Evaluation.
    assert evaluate(tiny(num_classes=2, clip=SPEC.to_dict(), num_frames=2), videos).count == COUNT


class Stopped(Exception):
    """In the middle of an epoch."""


@pytest.mark.parametrize("kind", ["shards", "column of bytes"])
def test_a_run_stopped_in_mid_epoch_ends_as_one_that_was_not(
    kind: str, read: Callable[[str], VideoList], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from timesformer_zoo.train.run import Run

    videos = read(kind)
    recipe = Recipe(epochs=2, batch_size=4, lr=0.02, drop_path=0.0)

    def run(folder: Path) -> dict[str, torch.Tensor]:
        model = tiny(num_classes=2, num_frames=2, clip=SPEC.to_dict())
        done = finetune(model, videos, recipe, folder, val=videos, save_every=1, progress=False)
        return done.model.state_dict()

    expected = run(tmp_path / "a")
    step = Run.step
    numbers: list[int] = []  # of the samples, as they were trained on

    def stopping(self: Any, number: int, parts: Any) -> float:
        numbers.extend(parts[0].indices.tolist())
        if number == 4:
            raise Stopped
        return step(self, number, parts)

    with monkeypatch.context() as patch:
        patch.setattr(Run, "step", stopping)
        with pytest.raises(Stopped):
            run(tmp_path / "b")
    assert numbers[:COUNT] == order(COUNT, seed_of(recipe.seed, 0), videos.shards, videos.window)
    for name, value in run(tmp_path / "b").items():
        assert torch.equal(value, expected[name]), name


# ---- the order of an epoch ----


def test_an_order_in_windows() -> None:
    shards, window = [7, 1, 40, 12, 30], 10
    numbers = order(90, 5, shards, window)
    assert sorted(numbers) == list(range(90))
    assert order(90, 5, shards, window) == numbers
    assert order(90, 6, shards, window) != numbers
    shard = {
        i: s
        for s, (end, size) in enumerate(zip(accumulate(shards), shards, strict=True))
        for i in range(end - size, end)
    }
    windows = [numbers[i : i + window] for i in range(0, 90, window)]
    # The shards come one behind the other: a window has but those that meet in it, and each is in as few as it fills.
    visits = Counter(s for part in windows for s in {shard[i] for i in part})
    assert all(visits[s] <= size // window + 2 for s, size in enumerate(shards))
    assert sorted(chain(*windows)) != list(chain(*windows))
    assert any(part != sorted(part) for part in windows)
    early = {shard[i] for seed in range(30) for i in order(90, seed, shards, window)[:window]}
    assert early == set(range(5))  # any shard may be the first


def test_without_a_window_all_samples_are_shuffled() -> None:
    assert order(20, 1, [5, 15]) == order(20, 1)


@pytest.mark.parametrize(("shards", "window"), [((5,), 3), ((5, 15), 0)])
def test_an_order_refuses_nonsense(shards: tuple[int, ...], window: int) -> None:
    with pytest.raises(ValueError, match="must be 1 or more, and shards of"):
        order(20, 1, shards, window)


# ---- shards ----


@pytest.mark.parametrize("label", ["cls", "txt", "json"])
def test_classes_of_shards(label: str, files: list[Path], tmp_path: Path) -> None:
    write_shards(tmp_path, files, label=label)
    videos = read_shards(tmp_path / "train-*.tar", window=5)
    assert videos.classes == CLASSES
    assert [sample.target for sample in videos.samples] == [CLASSES.index(path.parent.name) for path in files]
    assert videos.samples[3].path == f"{tmp_path / 'train-000001.tar'}::03.mp4"
    assert videos.shards == (3, 3, 3, 2)
    assert "4 shards; in training in random order, their samples in windows of 5" in videos.report()
    assert pickle.loads(pickle.dumps(videos)) == videos


def test_names_of_shards() -> None:
    assert expand("a-{008..010}.tar") == ["a-008.tar", "a-009.tar", "a-010.tar"]
    assert expand("{8..10}/{x,y}.tar")[1:3] == ["8/y.tar", "9/x.tar"]


def test_shards_of_a_folder(files: list[Path], tmp_path: Path) -> None:
    write_shards(tmp_path, files)
    videos = read_videos("shards", tmp_path, labels=["run", "jump"])
    assert len(videos.samples) == COUNT
    assert videos.window == 10_000
    assert videos.samples[0].target == 1


def test_shards_that_webdataset_wrote(files: list[Path], tmp_path: Path) -> None:
    writer = pytest.importorskip("webdataset").TarWriter
    with writer(str(tmp_path / "a.tar")) as out:
        for i, path in enumerate(files):
            out.write({"__key__": f"part/{path.stem}", "mp4": path.read_bytes(), "cls": i % 3, "json": {"fps": 25}})
    videos = read_shards(tmp_path / "a.tar")
    assert [sample.target for sample in videos.samples] == [i % 3 for i in range(COUNT)]
    assert VideoDataset(videos, SPEC)[4].clips is not None


def test_headers_are_read_once(files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = write_shards(tmp_path, files)
    videos = read_shards(map(str, paths))
    monkeypatch.setattr(tar_files, "_known", {})  # as a fresh process
    monkeypatch.setattr(tar_files, "_listed", lambda file: pytest.fail("read again"))
    assert read_shards(map(str, paths)) == videos


def test_a_cache_that_cannot_be_written_is_told_of(
    files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("TIMESFORMER_ZOO_CACHE", str(tmp_path / "file"))
    videos = read_shards(map(str, write_shards(tmp_path, files)))
    assert "can't be kept in" in videos.report()


@pytest.mark.parametrize(
    ("members", "says"),
    [
        (["a.mp4"], "sample a has no class, only a.mp4; expected .cls, .json or .txt"),
        (["a.cls"], "sample a has 0 videos among a.cls; expected one"),
        (["a.mp4", "a.left.mp4", "a.cls"], "sample a has 2 videos"),
        (["a.mp4", "a.cls", "b.mp4", "b.cls", "a.txt"], "the files of a do not lie together"),
    ],
)
def test_shards_that_are_not_as_expected(members: list[str], says: str, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name in members:
            info = tarfile.TarInfo(name)
            info.size = 1
            tar.addfile(info, io.BytesIO(b"0"))
    with pytest.raises(AnnotationError, match=says):
        read_shards(tmp_path / "a.tar")


def test_shards_that_are_not_there(files: list[Path], tmp_path: Path) -> None:
    (path, *_) = write_shards(tmp_path, files)
    for pattern in ("b-*.tar", "b.tar"):
        with pytest.raises(AnnotationError, match="there is no such shard"):
            read_shards(tmp_path / pattern)
    with pytest.raises(AnnotationError, match="this shard is named twice"):
        read_shards([path, path])
    with pytest.raises(VideoReadError, match=r"memory://none.tar: there is no such file"):
        read_shards("memory://none.tar")


# ---- addresses ----


def test_a_list_behind_an_address(files: list[Path], folder: Path) -> None:
    memory = fsspec.filesystem("memory")
    memory.store.clear()
    rows = ["path,label,start", "a b/0.mp4,run,0.1", "gone.mp4,jump,", "memory://other/1.mp4?x=1,jump,"]
    memory.pipe("/data/train.csv", "\n".join(rows).encode())
    memory.pipe("/data/a b/0.mp4", files[0].read_bytes())
    videos = read_videos("list", "memory://data")
    assert [s.path for s in videos.samples] == ["memory://data/a b/0.mp4", "memory://other/1.mp4?x=1"]
    assert [s.path for s in videos.missing] == ["gone.mp4"]
    assert videos.samples[0].start == 0.1
    assert VideoDataset(videos, SPEC, on_error="skip")[0].clips is not None


def test_what_a_list_says_of_addresses(tmp_path: Path) -> None:
    lines = ["https://h.org/a.mp4 riding a bike", "s3://b/x y.mp4 riding a bike", "https://h.org/get?id=3 sitting"]
    (tmp_path / "train.txt").write_text("\n".join(lines))
    videos = read_videos("list", tmp_path)
    assert [s.path for s in videos.samples] == ["https://h.org/a.mp4", "s3://b/x y.mp4", "https://h.org/get?id=3"]
    assert videos.classes == ("riding a bike", "sitting")


def test_a_root_that_is_not_there(hub: HubServer) -> None:
    with pytest.raises(AnnotationError, match="hf://datasets/me/none: no such folder"):
        read_videos("folder", "hf://datasets/me/none")
    address = hub.endpoint
    hub.stop()
    with pytest.raises((AnnotationError, VideoReadError), match=address):
        read_videos("folder", f"{address}/datasets/me/clips")


def test_nothing_secret_gets_into_results(hub: HubServer, tmp_path: Path) -> None:
    address = f"{hub.endpoint}/datasets/me/clips/resolve/main/none.mp4?token=hunter2"
    good = f"{hub.endpoint}/datasets/me/clips/resolve/main/train/jump/00.mp4?token=hunter2"
    (tmp_path / "train.txt").write_text(f"{address} 0\n{good} 1\n")
    result = evaluate(
        tiny(num_classes=2, num_frames=2, clip=SPEC.to_dict()), read_videos("list", tmp_path), on_error="skip"
    )
    result.save(tmp_path / "out")
    assert "hunter2" not in (tmp_path / "out" / "results.json").read_text() + result.summary()
    assert len(result.skipped) == 1


def test_classify_takes_them(
    hub: HubServer, files: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (shard, *_) = write_shards(tmp_path, files)
    names = [
        f"{hub.endpoint}/datasets/me/clips/resolve/main/train/jump/00.mp4?token=x",
        "hf://datasets/me/clips/train/run",
    ]
    assert main(["classify", *names, f"{shard}::00.mp4", "--json"]) == 0
    paths = [json.loads(line)["path"] for line in capsys.readouterr().out.splitlines()]
    assert paths[0] == names[0].replace("token=x", "…")
    assert paths[1:-1] == [f"{names[1]}/{i:02}.mp4" for i in range(1, COUNT, 2)]
    assert paths[-1] == f"{shard}::00.mp4"
    assert main(["classify", "hf://datasets/me/clips/train/*/00.mp4"]) == 0
    assert capsys.readouterr().out.startswith("hf://datasets/me/clips/train/jump/00.mp4: ")
    assert main(["classify", "hf://datasets/me/clips/*.avi"]) == 1
    assert "hf://datasets/me/clips/*.avi: no file fits this pattern" in capsys.readouterr().err
    assert main(["classify", "memory://none.mp4"]) == 1
    assert "memory://none.mp4: there is no such file" in capsys.readouterr().err


# ---- columns of datasets ----


def test_a_column_names_its_rows(files: list[Path]) -> None:
    videos = read_dataset(make_dataset(files, "bytes"))
    assert videos.samples[7].path.endswith("[7]")
    assert [s.target for s in videos.samples] == [i % 2 for i in range(COUNT)]
    broken = make_dataset(files, "bytes").map(lambda row: {"video": {"path": None, "bytes": b"no video"}})
    with pytest.raises(VideoReadError, match=r"\[3\]: there is no video in it"):
        VideoDataset(read_dataset(broken), SPEC)[3]


def test_a_column_by_the_name_of_its_data_set(
    files: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    datasets = pytest.importorskip("datasets")
    dataset = make_dataset(files, "bytes").rename_columns({"video": "clip", "label": "what"})
    datasets.DatasetDict(train=dataset.select(range(8)), validation=dataset.select(range(8, COUNT))).save_to_disk(
        tmp_path / "saved"
    )
    root = str(tmp_path / "saved")
    assert len(read_videos("datasets", root).samples) == 8
    val = read_videos("datasets", root, "val")
    assert (val.name, val.split, val.classes, len(val.samples)) == (root, "val", CLASSES, 3)
    with pytest.raises(AnnotationError, match="it has no split 'test'; it has train, validation"):
        read_videos("datasets", root, "test")
    with pytest.raises(AnnotationError, match=r"none: datasets can't load it"):
        read_videos("datasets", str(tmp_path / "none"))
    model = save_pretrained(tiny(num_classes=2, num_frames=2, clip=SPEC.to_dict()), tmp_path / "model", labels=CLASSES)
    assert main(["evaluate", str(model), root, "--data", "datasets", "--workers", "0", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["count"] == 3


def test_a_column_of_labels_or_values(files: list[Path]) -> None:
    datasets = pytest.importorskip("datasets")
    paths = list(map(str, files[:3]))
    names = datasets.List(datasets.ClassLabel(names=["dance", "jump", "run"]))
    features = datasets.Features(video=datasets.Value("string"), label=names, speed=datasets.Value("float32"))
    rows = dict(video=paths, label=[[0, 2], [], [1]], speed=[0.5, 1.25, 2.0])
    column = datasets.Dataset.from_dict(rows, features=features)
    labels = read_dataset(column)
    assert (labels.task, labels.classes) == ("multilabel", ("dance", "jump", "run"))
    assert [sample.target for sample in labels.samples] == [(0, 2), (), (1,)]
    values = read_dataset(column, target="speed", task="regression")
    assert [sample.target for sample in values.samples] == [(0.5,), (1.25,), (2.0,)]


def test_columns_that_are_refused(files: list[Path]) -> None:
    dataset = make_dataset(files, "paths")
    with pytest.raises(AnnotationError, match="no column 'clip'; it has"):
        read_dataset(dataset, "clip")
    with pytest.raises(TypeError, match="can be read in any order, got IterableDataset; call load_dataset without"):
        read_dataset(dataset.to_iterable_dataset())
    with pytest.raises(TypeError, match=r"got DatasetDict; .* choose a split"):
        read_dataset(pytest.importorskip("datasets").DatasetDict(train=dataset))
    boxes = dataset.remove_columns("label").add_column("label", [{"x": 0}] * COUNT)
    with pytest.raises(AnnotationError, match="expected an index, a name, a value, or a list of labels for each video"):
        read_dataset(boxes)
