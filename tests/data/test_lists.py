"""Annotation lists as strangers write them: what is meant is read, or one line says why not."""

import codecs
import json
import unicodedata
from pathlib import Path

import pytest

from timesformer_zoo import AnnotationError, VideoList, read_videos


def touch(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def read(root: Path, text: str | bytes, file: str = "train.csv", **options: str) -> VideoList:
    (root / file).write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_videos("json" if file.endswith(("json", "jsonl")) else "list", root, **options)


def pairs(videos: VideoList) -> list[tuple[str, str]]:
    """(path below the list's folder, class name) of what was found."""
    return [("/".join(Path(s.path).parts[-2:]), videos.classes[s.target]) for s in videos.samples]


def short(root: Path, videos: VideoList) -> dict[str, str]:
    assert not videos.missing
    return {str(Path(sample.path).relative_to(root)): videos.classes[sample.target] for sample in videos.samples}


AB = {"a.mp4": "run", "b.mp4": "sit"}


@pytest.mark.parametrize("name", ["path", "video_path", "file_name", "filename", "video", "clip", "Video Path", "File"])
@pytest.mark.parametrize("label", ["label", "class", "Label", "class_name", "action"])
def test_columns_are_known_by_many_names(name: str, label: str, tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "b.mp4")
    assert short(tmp_path, read(tmp_path, f"{name},{label}\na.mp4,run\nb.mp4,sit\n")) == AB
    assert (
        short(tmp_path, read(tmp_path, f",{label};,{name},fps\n0,run,a.mp4,25\n1,sit,b.mp4,\n".replace(";", ""))) == AB
    )


@pytest.mark.parametrize("separator", [",", "\t", ";", "|", " "])
@pytest.mark.parametrize("header", [True, False])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_separators_and_line_ends(separator: str, header: bool, end: str, tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "b.mp4")
    lines = [["path", "label"]] * header + [["a.mp4", "run"], ["b.mp4", "sit"]]
    text = end.join(map(separator.join, lines))
    assert short(tmp_path, read(tmp_path, text)) == AB


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "cp1252", "latin-1"])
@pytest.mark.parametrize("header", ["", "path,label\n"])
def test_encodings(encoding: str, header: str, tmp_path: Path) -> None:
    videos = read(touch(tmp_path, "café.mp4"), f"{header}café.mp4,prügeln\n".encode(encoding))
    assert short(tmp_path, videos) == {"café.mp4": "prügeln"}
    assert ("is no UTF-8: read as cp1252" in videos.report()) == (encoding in ("cp1252", "latin-1"))


@pytest.mark.parametrize(
    "data", [b"a.mp4,\x81\x8d\n", b"PK\x03\x04\x00\x00\x08\x00\xff", codecs.BOM_UTF16_LE + b"\0\xd8"]
)
def test_what_is_no_text_is_said(data: bytes, tmp_path: Path) -> None:
    with pytest.raises(AnnotationError, match=r"train\.csv: neither UTF-8 text, nor UTF-16, nor cp1252"):
        read(tmp_path, data)


def test_accents_in_two_characters(tmp_path: Path) -> None:
    """macOS stores e and its accent apart, and so do archives that were made there."""
    touch(tmp_path, unicodedata.normalize("NFD", "café.mp4"))
    assert not read(tmp_path, "café.mp4,x\n").missing
    assert not read(tmp_path, "café,x\n").missing


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('"a, b.mp4","put on, take off"\nc.mp4,run\n', [("a, b.mp4", "put on, take off"), ("c.mp4", "run")]),
        ("a, b.mp4,put on, take off\nc.mp4,run\n", [("a, b.mp4", "put on, take off"), ("c.mp4", "run")]),
        ("path,label\na, b.mp4,put on, take off\nc.mp4,run\n", [("a, b.mp4", "put on, take off"), ("c.mp4", "run")]),
        ('path,label\n"a, b.mp4","put ""on"""\nc.mp4,run\n', [("a, b.mp4", 'put "on"'), ("c.mp4", "run")]),
        ("d e.mp4 jumping jacks\nc.mp4 run fast\n", [("d e.mp4", "jumping jacks"), ("c.mp4", "run fast")]),
        ("c.mp4,gesture 1\nd e.mp4,gesture 2\n", [("c.mp4", "gesture 1"), ("d e.mp4", "gesture 2")]),
        ("run,c.mp4\njumping jacks,d e.mp4\n", [("c.mp4", "run"), ("d e.mp4", "jumping jacks")]),
        ("c.mp4   0\nd e.mp4 \t 1\n", [("c.mp4", "0"), ("d e.mp4", "1")]),
        ('f "g" h.mp4 0\n"d e.mp4" 1\n', [('f "g" h.mp4', "0"), ("d e.mp4", "1")]),
        ('"g" i.mp4 0\nc.mp4 1\n', [('"g" i.mp4', "0"), ("c.mp4", "1")]),
        ("c.mp4,0,\nd e.mp4,1,\n", [("c.mp4", "0"), ("d e.mp4", "1")]),
        ("path,label\nc.mp4,0.0\nd e.mp4,10.0\n", [("c.mp4", "0"), ("d e.mp4", "10")]),
        ("sub\\j.mp4,run\n", [("sub/j.mp4", "run")]),
        ("./sub/j.mp4,run\n", [("sub/j.mp4", "run")]),
        ("k:l.mp4 3\nfile:m.mp4 0\n", [("k:l.mp4", "3"), ("file:m.mp4", "0")]),
    ],
)
def test_names_and_labels_with_separators(text: str, expected: list[tuple[str, str]], tmp_path: Path) -> None:
    names = ("a, b.mp4", "c.mp4", "d e.mp4", 'f "g" h.mp4', '"g" i.mp4', "sub/j.mp4", "k:l.mp4", "file:m.mp4")
    touch(tmp_path, *names)
    assert short(tmp_path, read(tmp_path, text)) == dict(expected)


@pytest.mark.parametrize("header", ["", "path,label\n", "path,label,fps\n"])
def test_comments_and_names_that_start_with_a_hash(header: str, tmp_path: Path) -> None:
    end = ",25" if "fps" in header else ""
    touch(tmp_path, "#1 goal.mp4", "a.mp4", "b.mp4")
    lines = ["# made by hand, in 2024", "#1 goal.mp4,run", "a.mp4,run", "#b.mp4,sit", "#", "#gone.mp4,sit", "# 3,7"]
    text = "# by me\n" + header + "\n".join(line + end for line in lines) + "\n"
    videos = read(tmp_path, text)
    assert short(tmp_path, videos) == {"#1 goal.mp4": "run", "a.mp4": "run"}
    if not end:
        assert "2 lines with # at the start and no video's name" in videos.report()


def test_all_names_start_with_a_hash(tmp_path: Path) -> None:
    assert short(tmp_path, read(touch(tmp_path, "#1.mp4", "#2.mp4"), "#1.mp4 0\n#2.mp4 1\n")) == {
        "#1.mp4": "0",
        "#2.mp4": "1",
    }


# --- which video is meant


def test_ids_without_a_suffix(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "deep/er/b.MKV", "sub/c.avi", "d.1.mp4", "e/00001.jpg")
    videos = read(tmp_path, "a 0\nb 1\nsub/c 2\nd.1 3\ne 4\nsub/gone 5\nsub/b 5\n")
    found = {str(Path(s.path).relative_to(tmp_path)): s.target for s in videos.samples}
    assert found == {"a.mp4": 0, "deep/er/b.MKV": 1, "sub/c.avi": 2, "d.1.mp4": 3, "e": 4}
    assert [sample.path for sample in videos.missing] == ["sub/gone", "sub/b"]


@pytest.mark.parametrize("names", [("a.mp4", "a.avi"), ("x/a.mp4", "y/a.mp4")])
def test_two_videos_with_one_id_are_named(names: tuple[str, ...], tmp_path: Path) -> None:
    touch(tmp_path, *names, "b.mp4")
    with pytest.raises(AnnotationError, match="'a' could be any of") as error:
        read(tmp_path, "a,run\nb,run\n")
    assert all(name in str(error.value) for name in names)


def test_the_id_at_its_own_place_is_meant(tmp_path: Path) -> None:
    assert short(tmp_path, read(touch(tmp_path, "a.mp4", "x/a.mp4"), "a,run\n")) == {"a.mp4": "run"}


def test_paths_may_start_at_the_list(tmp_path: Path) -> None:
    """As those of mmaction2 and Hugging Face's videofolder; those from the videos' folder come first."""
    touch(tmp_path, "videos/a.mp4", "lists/b.mp4", "lists/a.mp4")
    (tmp_path / "lists/train.txt").write_text("a.mp4 0\nb.mp4 1\n")
    videos = read_videos("list", tmp_path / "videos", annotations=tmp_path / "lists")
    assert [s.path for s in videos.samples] == [str(tmp_path / "videos/a.mp4"), str(tmp_path / "lists/b.mp4")]


def test_a_relative_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(touch(tmp_path, "a:b.mp4", "c.mp4"))
    (tmp_path / "train.txt").write_text("a:b.mp4 0\nc 1\n")
    videos = read_videos("list", ".")
    assert [Path(sample.path) for sample in videos.samples] == [Path("a:b.mp4"), Path("c.mp4")]


def test_folders_of_frames_with_their_number(tmp_path: Path) -> None:
    """mmaction2's rawframes: folder, number of frames, label; names may end in a number, too."""
    touch(tmp_path, "run/a/img_1.jpg", "take 2/img_1.jpg")
    assert short(tmp_path, read(tmp_path, "run/a 300 5\ntake 2 300 1\n")) == {"run/a": "5", "take 2": "1"}


@pytest.mark.parametrize("text", ["a.mp4 3 7\n", "a.mp4,3,7\n", "f 1 300 7\n"])
def test_several_labels_are_refused(text: str, tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "f/1.jpg")
    with pytest.raises(AnnotationError, match=r"train\.csv, line 1: expected one label for (a\.mp4|f), got .* and 7"):
        read(tmp_path, text)


# --- splits, labels and their indices


def test_a_column_for_the_split(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "b.mp4", "c.mp4")
    text = "path,label,split\na.mp4,run,Training\nb.mp4,sit,val\nc.mp4,sit,valid\n"
    (tmp_path / "all.csv").write_text(text)
    read_split = {s: read_videos("list", tmp_path, s, annotations=tmp_path / "all.csv") for s in ("train", "val")}
    assert short(tmp_path, read_split["train"]) == {"a.mp4": "run"}
    assert short(tmp_path, read_split["val"]) == {"b.mp4": "sit", "c.mp4": "sit"}
    with pytest.raises(AnnotationError, match="its rows are of the splits Training, val; expected some for 'test'"):
        read_videos("list", tmp_path, "test", annotations=tmp_path / "all.csv")
    (tmp_path / "all.csv").write_text(text.replace("Training", "1"))
    with pytest.raises(AnnotationError, match="column for the split has '1', expected one of train, training"):
        read_videos("list", tmp_path, annotations=tmp_path / "all.csv")


def test_a_file_that_says_nothing_of_splits_is_reported(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4")
    for name in ("all.csv", "train.csv"):
        (tmp_path / name).write_text("a.mp4 0\n")
    report = read_videos("list", tmp_path, "val", annotations=tmp_path / "all.csv").report()
    assert "all.csv says nothing of splits: all of it is taken for val" in report
    report = read_videos("list", tmp_path, "val", annotations=tmp_path / "train.csv").report()
    assert "train.csv was given, and is taken, for the split val" in report
    assert "split" not in read_videos("list", tmp_path).report()


def test_indices_beside_names_order_the_classes(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "b.mp4")
    for text in (
        "path,label,class_id\na.mp4,run,2\nb.mp4,sit,0\n",
        "path,label,label_name\na.mp4,2,run\nb.mp4,0,sit\n",
    ):
        videos = read(tmp_path, text)
        assert videos.classes == ("sit", "class 1", "run")
        assert [sample.target for sample in videos.samples] == [2, 0]
    with pytest.raises(AnnotationError, match="index 2 is 'run' and 'sit'; expected one"):
        read(tmp_path, "path,label,class_id\na.mp4,run,2\nb.mp4,sit,2\n")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.mp4 -1\n", "labels below 0; expected indices from 0"),
        ("a.mp4 45000000\n", "a label is 45000000, expected indices from 0; if they are ids"),
        ("path,label\na.mp4,\n", r"line 2: expected 'path label' or 'path,label', got 'a.mp4,'"),
        ("path,label,fps\na.mp4,,25\n", r"expected a column label or class .*got {'path': 'a.mp4', 'label': ''"),
        (
            "path,label,fps\na.mp4,put on, take off,25\n",
            r"line 2: expected 3 fields \(path, label, fps\), got 'a.mp4,put",
        ),
        ('path,label,fps\na.mp4,"run,25\nb.mp4,sit,25\n', r"line \d: .*check the double quotes"),
        ('path,label,fps\na.mp4,"run\nb.mp4",25\n', r"line 3: expected 3 fields"),
        ("path,label,Label\na.mp4,run,sit\n", "two columns are called 'label'; rename one"),
        ("file_name\na.mp4\n", r"expected a column label or class .*got {'file_name': 'a.mp4'}"),
        ("a.mp4\nb.mp4\n", r"line 1: expected 'path label' or 'path,label', got 'a.mp4'"),
        ("a.mp4,0\nb.mp4\n", r"line 2: expected 'path label' or 'path,label', got 'b.mp4'"),
        ("# nothing\n", "no classes of list train there"),
        ("", "no classes of list train there"),
    ],
)
def test_what_cannot_be_meant_is_said_in_one_line(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(AnnotationError, match=message) as error:
        read(touch(tmp_path, "a.mp4", "b.mp4"), text)
    assert "\n" not in str(error.value)
    assert str(tmp_path / "train.csv") in str(error.value)


def test_indices_from_1_are_suspected(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "b.mp4")
    with pytest.raises(AnnotationError, match=r"label '2' is not among the 2 classes: .* whether indices start at 0"):
        read(tmp_path, "a.mp4 1\nb.mp4 2\n", labels=["run", "sit"])


# --- JSON


@pytest.mark.parametrize(
    "content",
    [
        [{"file_name": "a.mp4", "label": "run"}, {"file_name": "b.mp4", "label": "sit"}],
        [{"Video": "a.mp4", "Label": "run"}, {"Video": "b.mp4", "Label": "sit"}],
        {"a.mp4": {"label": "run"}, "b.mp4": {"label": "sit"}},
        {"a": "run", "b": "sit"},
        {
            "train": [{"id": "a", "label": "run"}, {"id": "b", "label": "sit"}],
            "validation": [{"id": "c", "label": "x"}],
        },
    ],
)
def test_json_objects(content: object, tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "b.mp4")
    assert short(tmp_path, read(tmp_path, json.dumps(content), "train.json")) == AB


@pytest.mark.parametrize("file", ["train.json", "train.jsonl"])
@pytest.mark.parametrize("count", [1, 2])
def test_json_lines(file: str, count: int, tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "b.mp4")
    lines = [json.dumps({"id": i, "path": path, "label": label}) for i, (path, label) in enumerate(AB.items())][:count]
    if (file, count) != ("train.json", 1):
        assert len(read(tmp_path, "\n".join(lines), file).samples) == count


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not JSON"),
        ('[["a.mp4", 1]]', "expected a list of objects, or an object of objects or labels, got "),
        ('{"version": 1, "videos": [{"path": "a.mp4"}]}', "expected a list of objects"),
        ('[{"path": "a.mp4", "label": {"1": 2}}]', r"expected one label for each video, got {'1': 2}"),
        ("[" * 100_000, "not JSON"),
    ],
)
def test_json_that_is_no_table(content: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(AnnotationError, match=rf"train\.json: {message}"):
        read(touch(tmp_path, "a.mp4"), content, "train.json")


# --- Hugging Face's videofolder


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_videofolder(kind: str, tmp_path: Path) -> None:
    touch(tmp_path, "train/a.mp4", "train/x/b.mp4", "validation/a.mp4")
    for split, rows in {"train": [("a.mp4", "run"), ("x/b.mp4", "sit")], "validation": [("a.mp4", "sit")]}.items():
        records = [{"file_name": name, "label": label, "caption": "one,\ntwo"} for name, label in rows]
        lines = [f'{r["file_name"]},"{r["caption"]}",{r["label"]}' for r in records]
        text = "\n".join(["file_name,caption,label", *lines] if kind == "csv" else map(json.dumps, records))
        (tmp_path / split / f"metadata.{kind}").write_text(text)
    train, val = read_videos("videofolder", tmp_path), read_videos("videofolder", tmp_path, "val")
    assert short(tmp_path, train) == {"train/a.mp4": "run", "train/x/b.mp4": "sit"}
    assert short(tmp_path, val) == {"validation/a.mp4": "sit"}


def test_ids_of_a_videofolder_are_of_its_split(tmp_path: Path) -> None:
    touch(tmp_path, "train/a.mp4", "val/a.mp4", "val/b.mp4")
    for split, text in {"train": "a,run\nb,sit\n", "val": "a,sit\nb,run\n"}.items():
        (tmp_path / split / "metadata.csv").write_text("file_name,label\n" + text)
    assert short(tmp_path, read_videos("videofolder", tmp_path, "val")) == {"val/a.mp4": "sit", "val/b.mp4": "run"}
    assert read_videos("videofolder", tmp_path).samples[0].path == str(tmp_path / "train/a.mp4")


def test_one_list_of_all_splits_tells_them_by_folders(tmp_path: Path) -> None:
    touch(tmp_path, "train/a.mp4", "test/b.mp4")
    (tmp_path / "metadata.csv").write_text("file_name,label\ntrain/a.mp4,run\ntest/b.mp4,sit\n")
    assert short(tmp_path, read_videos("videofolder", tmp_path)) == {"train/a.mp4": "run"}
    assert short(tmp_path, read_videos("videofolder", tmp_path, "test")) == {"test/b.mp4": "sit"}
    with pytest.raises(AnnotationError, match="its rows are of the splits train, test; expected some for 'val'"):
        read_videos("videofolder", tmp_path, "val")
