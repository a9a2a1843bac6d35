"""Annotation formats and protocols. Files are in the publishers' formats; videos are empty files with their names."""

import json
from pathlib import Path

import pytest

from timesformer_zoo import DATASETS, AnnotationError, Sample, TimesformerZooError, VideoList, read_videos
from timesformer_zoo.data.annotations import class_key, read_labels
from timesformer_zoo.data.tables import read_list


def touch(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def pairs(videos: VideoList) -> list[tuple[str, str]]:
    """(file name, class name) of what was found."""
    return sorted((Path(sample.path).name, videos.classes[sample.target]) for sample in videos.samples)


def missing(videos: VideoList) -> list[str]:
    return sorted(sample.path for sample in videos.missing)


# ---- a folder per class ----


def test_folder_with_splits(tmp_path):
    touch(tmp_path, "train/run/a.mp4", "train/run/b.MOV", "train/jump/c.avi", "valid/run/d.webm", "valid/walk/e.mp4")
    touch(tmp_path, "train/run/notes.txt", "train/run/.hidden.mp4", "train/.cache/x.mp4")
    train, val = (read_videos("folder", tmp_path, split) for split in ("train", "val"))
    assert train.classes == val.classes == ("jump", "run", "walk")  # of both, so that an index means the same in each
    assert pairs(train) == [("a.mp4", "run"), ("b.MOV", "run"), ("c.avi", "jump")]
    assert pairs(val) == [("d.webm", "run"), ("e.mp4", "walk")]
    assert "walk" in train.report()  # a class without videos
    with pytest.raises(AnnotationError, match="none for 'test'"):
        read_videos("folder", tmp_path, "test")


def test_folder_without_splits_holds_out_a_fifth_of_each_class(tmp_path):
    touch(tmp_path, *(f"run/{i}.mp4" for i in range(10)), "jump/a.mp4", "jump/b.mp4", "sit/only.mp4")
    train, val = (read_videos("folder", tmp_path, split) for split in ("train", "val"))
    assert train.counts() == {"jump": (1, 0), "run": (8, 0), "sit": (1, 0)}
    assert val.counts() == {"jump": (1, 0), "run": (2, 0), "sit": (0, 0)}
    assert not {s.path for s in train.samples} & {s.path for s in val.samples}
    assert "hash" in train.report()


def test_folders_of_frames_are_videos(tmp_path):
    touch(tmp_path, "run/a/000001.jpg", "run/a/000002.jpg", "run/more/b/img_1.png", "run/c.mp4")
    videos = read_videos("folder", touch(tmp_path, "run/d.mp4", "run/e.mp4"), "train")
    held_out = read_videos("folder", tmp_path, "val")
    assert {Path(s.path).name for v in (videos, held_out) for s in v.samples} == {"a", "b", "c.mp4", "d.mp4", "e.mp4"}


# ---- lists and tables ----


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a.mp4 0\nsub/b.mp4 1\n", [("a.mp4", "0"), ("sub/b.mp4", "1")]),
        ("a.mp4,0\nb, c.mp4,11\n", [("a.mp4", "0"), ("b, c.mp4", "11")]),
        ("# comment\na b.mp4 2\n\n c.mp4 0 \n", [("a b.mp4", "2"), ("c.mp4", "0")]),
        ("a, b.mp4 2\nc, d.mp4 0\n", [("a, b.mp4", "2"), ("c, d.mp4", "0")]),
        ("a.mp4\tjumping jacks\n", [("a.mp4", "jumping jacks")]),
        ("a.mp4,jumping jacks\nb c.mp4,run\n", [("a.mp4", "jumping jacks"), ("b c.mp4", "run")]),
        ("\ufeffa.mp4;3\n", [("a.mp4", "3")]),
    ],
)
def test_lists(tmp_path, text, expected):
    path = tmp_path / "list.csv"
    path.write_text(text, encoding="utf-8")
    assert read_list(path) == expected


def test_a_list_that_does_not_split_names_the_line(tmp_path):
    path = tmp_path / "list.csv"
    path.write_text("a.mp4 0\nb.mp4\n")
    with pytest.raises(AnnotationError, match=r"'b.mp4'"):
        read_list(path)


def test_official_layout(tmp_path):
    touch(tmp_path, "a.mp4", "sub/b.mp4")
    elsewhere = touch(tmp_path / "elsewhere", "c.mp4") / "c.mp4"
    (tmp_path / "train.csv").write_text(f"a.mp4 0\nsub/b.mp4 2\n{elsewhere} 1\ngone.mp4 2\n")
    videos = read_videos("list", tmp_path)
    assert videos.classes == ("0", "1", "2")
    assert videos.samples == (
        Sample(str(tmp_path / "a.mp4"), 0),
        Sample(str(tmp_path / "sub/b.mp4"), 2),
        Sample(str(elsewhere), 1),
    )
    assert missing(videos) == ["gone.mp4"]
    named = read_videos("list", tmp_path, labels=["run", "jump", "walk"])
    assert pairs(named) == [("a.mp4", "run"), ("b.mp4", "walk"), ("c.mp4", "jump")]
    with pytest.raises(AnnotationError, match=r"'2' is not among the 2 classes: 'run', 'jump'"):
        read_videos("list", tmp_path, labels=["run", "jump"])


def test_a_file_of_the_same_name_elsewhere_does_not_stand_in(tmp_path):
    touch(tmp_path, "b/video.mp4")
    (tmp_path / "train.csv").write_text("a/video.mp4 0\nb/video.mp4 1\n")
    videos = read_videos("list", tmp_path)
    assert [sample.target for sample in videos.samples] == [1]
    assert missing(videos) == ["a/video.mp4"]


def test_list_with_header_and_parts(tmp_path):
    touch(tmp_path, "film.mp4")
    (tmp_path / "train.csv").write_text("path,label,start,end\nfilm.mp4,run,0,2.5\nfilm.mp4,sit,2.5,\n")
    videos = read_videos("list", tmp_path)
    film = str(tmp_path / "film.mp4")
    assert videos.classes == ("run", "sit")
    assert videos.samples == (Sample(film, 0, 0.0, 2.5), Sample(film, 1, 2.5, None))


@pytest.mark.parametrize("lines", [False, True])
def test_json(tmp_path, lines):
    rows = [{"path": "a.mp4", "label": "run"}, {"path": "b.mp4", "label": "sit", "start": 1, "end": 2}]
    name = "train.jsonl" if lines else "train.json"
    (tmp_path / name).write_text("\n".join(map(json.dumps, rows)) if lines else json.dumps(rows))
    videos = read_videos("json", touch(tmp_path, "a.mp4", "b.mp4"))
    assert videos.samples[1] == Sample(str(tmp_path / "b.mp4"), 1, 1.0, 2.0)


def test_howto100m_parts_of_long_videos(tmp_path):
    touch(tmp_path, "ab/xyz.webm")
    (tmp_path / "train.csv").write_text("video_id,task_id,start,end\nxyz,7,0,8.5\nxyz,7,100,108.5\nuvw,3,0,8.5\n")
    videos = read_videos("howto100m", tmp_path)
    assert len(videos.classes) == 8
    assert [(s.target, s.start) for s in videos.samples] == [(7, 0.0), (7, 100.0)]
    assert videos.missing == (Sample("uvw", 3, 0.0, 8.5),)


# ---- the data sets ----


def test_kinetics_with_missing_videos(tmp_path):
    touch(tmp_path, "val/air_drumming/abc_DEF-123_000004_000014.mp4", "val/xyz00000000.mp4")
    (tmp_path / "validate.csv").write_text(
        "label,youtube_id,time_start,time_end,split\n"
        "air drumming,abc_DEF-123,4,14,validate\n"
        "abseiling,xyz00000000,20,30,val\n"
        "abseiling,gone0000000,20,30,val\n"
        "abseiling,train000000,20,30,train\n"
    )
    videos = read_videos("kinetics400", tmp_path, "val")
    assert len(videos.classes) == 400
    assert pairs(videos) == [("abc_DEF-123_000004_000014.mp4", "air drumming"), ("xyz00000000.mp4", "abseiling")]
    # The one is cut already, of the other the ten seconds are meant.
    assert [(s.start, s.end) for s in videos.samples] == [(None, None), (20.0, 30.0)]
    assert missing(videos) == ["gone0000000_000020_000030"]
    report = videos.report()
    assert "3 videos in 400 classes, 2 found, 1 missing" in report
    assert "1 abseiling (1 missing)" in report
    assert "missing: gone0000000_000020_000030" in report


@pytest.mark.parametrize("frames", [False, True])
def test_ssv2(tmp_path, frames):
    names = ("7/000001.jpg", "8/000001.jpg") if frames else ("7.webm", "8.webm")
    touch(tmp_path / "videos", *names)
    notes = tmp_path / "notes"
    notes.mkdir()
    rows = [
        {"id": "7", "label": "holding potato next to bottle", "template": "Holding [something] next to [something]"},
        {
            "id": "8",
            "label": "x",
            "template": "Putting [something similar to other things that are already on the table]",
        },
        {"id": "9", "label": "x", "template": "Holding [something]"},
    ]
    (notes / "something-something-v2-train.json").write_text(json.dumps(rows))
    videos = read_videos("ssv2", tmp_path / "videos", annotations=notes)
    assert [videos.classes[s.target] for s in videos.samples] == [
        "Holding something next to something",
        "Putting something similar to other things that are already on the table",
    ]
    assert [Path(s.path).name for s in videos.samples] == (["7", "8"] if frames else ["7.webm", "8.webm"])
    assert missing(videos) == ["9"]


def test_ssv2_unlabelled_test_set_is_refused(tmp_path):
    (tmp_path / "train.json").write_text('[{"id": "1"}]')
    with pytest.raises(AnnotationError, match="expected a column template"):
        read_videos("ssv2", tmp_path)


def test_ucf101_splits(tmp_path):
    # Flat or in class folders, and re-encoded: found by name.
    touch(tmp_path / "v", "Archery/v_Archery_g01_c01.avi", "v_Archery_g08_c02.mp4", "v_ApplyLipstick_g08_c01.avi")
    lists = tmp_path / "ucfTrainTestlist"
    lists.mkdir()
    (lists / "trainlist01.txt").write_text(
        "ApplyLipstick/v_ApplyLipstick_g08_c01.avi 2\r\nArchery/v_Archery_g08_c02.avi 3\r\n"
    )
    (lists / "testlist01.txt").write_text("Archery/v_Archery_g01_c01.avi\n")
    (lists / "trainlist02.txt").write_text("Archery/v_Archery_g01_c01.avi 3\n")
    train = read_videos("ucf101", tmp_path / "v", "train", annotations=lists)
    test = read_videos("ucf101", tmp_path / "v", "test", fold=1, annotations=lists)
    assert pairs(train) == [("v_ApplyLipstick_g08_c01.avi", "ApplyLipstick"), ("v_Archery_g08_c02.mp4", "Archery")]
    assert [s.target for s in train.samples] == [1, 2]  # one less than in the list
    assert pairs(test) == [("v_Archery_g01_c01.avi", "Archery")]
    assert test.fold == "1"
    assert pairs(read_videos("ucf101", tmp_path / "v", fold="2", annotations=lists)) == pairs(test)
    with pytest.raises(AnnotationError, match=r"'4'. Choose from: 1, 2, 3"):
        read_videos("ucf101", tmp_path, fold=4)
    with pytest.raises(AnnotationError, match=r"'val'. Choose from: train, test"):
        read_videos("ucf101", tmp_path, "val")
    with pytest.raises(AnnotationError, match=r"No trainlist03.txt in .*ucfTrainTestlist"):
        read_videos("ucf101", tmp_path, fold=3, annotations=lists)


def test_hmdb51_flags(tmp_path):
    names = [f"x_brush_hair_{i}.avi" for i in range(3)]
    touch(tmp_path / "v", *(f"brush_hair/{name}" for name in names), "catch/ball [1] & 2_catch.avi")
    lists = tmp_path / "splits"
    lists.mkdir()
    (lists / "brush_hair_test_split2.txt").write_text(
        "".join(f"{n} {flag} \n" for n, flag in zip(names, (1, 2, 0), strict=True))
    )
    (lists / "catch_test_split2.txt").write_text("ball [1] & 2_catch.avi 1\n")
    (lists / "catch_test_split1.txt").write_text("ball [1] & 2_catch.avi 2\n")
    train = read_videos("hmdb51", tmp_path / "v", "train", fold=2, annotations=lists)
    test = read_videos("hmdb51", tmp_path / "v", "test", fold=2, annotations=lists)
    assert pairs(train) == [("ball [1] & 2_catch.avi", "catch"), (names[0], "brush_hair")]
    assert pairs(test) == [(names[1], "brush_hair")]


def test_diving48(tmp_path):
    touch(tmp_path, "rgb/_8Vy3dlHg2w_00000.mp4")
    rows = [
        {"vid_name": "_8Vy3dlHg2w_00000", "label": 26, "start_frame": 0, "end_frame": 118},
        {"vid_name": "gone", "label": 0, "start_frame": 0, "end_frame": 118},
    ]
    (tmp_path / "Diving48_V2_train.json").write_text(json.dumps(rows))
    videos = read_videos("diving48", tmp_path)
    assert videos.samples == (Sample(str(tmp_path / "rgb/_8Vy3dlHg2w_00000.mp4"), 26),)
    assert missing(videos) == ["gone"]
    vocabulary = tmp_path / "Diving48_vocab.json"
    vocabulary.write_text(json.dumps([name.split("+") for name in videos.classes]))
    assert read_videos("diving48", tmp_path, labels=vocabulary).classes == videos.classes


def test_ntu_protocols(tmp_path):
    name = "S{:03}C{:03}P{:03}R001A{:03}_rgb.avi"
    touch(tmp_path, *(name.format(*p) for p in [(1, 1, 1, 1), (1, 2, 3, 60), (2, 3, 45, 2), (32, 1, 106, 120)]))

    def actions(data, split, fold):
        videos = read_videos(data, tmp_path, split, fold=fold)
        return sorted(sample.target + 1 for sample in videos.samples)

    # Subject 1 is for training and 3 for testing; 45 is of the 120.
    assert (actions("ntu60", "train", "xsub"), actions("ntu60", "test", "xsub")) == ([1], [2, 60])
    assert (actions("ntu60", "train", "xview"), actions("ntu60", "test", "xview")) == ([2, 60], [1])
    assert (actions("ntu120", "train", "xsub"), actions("ntu120", "test", "xsub")) == ([1, 2], [60, 120])
    assert (actions("ntu120", "train", "xset"), actions("ntu120", "test", "xset")) == ([2, 120], [1, 60])
    assert read_videos("ntu60", tmp_path).classes[:2] == ("drink water", "eat meal/snack")
    assert read_videos("ntu120", tmp_path, fold="xset").classes[119] == "A120"


def test_ntu_subject_lists_are_as_published():
    # Half of the subjects of each: 20 of 40, 53 of 106.
    from timesformer_zoo.data.catalogue import NTU60_SUBJECTS, NTU120_SUBJECTS

    assert (len(NTU60_SUBJECTS), len(NTU120_SUBJECTS)) == (20, 53)


def test_ambiguous_names_are_refused(tmp_path):
    touch(tmp_path, "a/7.webm", "b/7.mp4")
    (tmp_path / "train.json").write_text('[{"id": "7", "template": "Holding [something]"}]')
    with pytest.raises(AnnotationError, match="could be any of"):
        read_videos("ssv2", tmp_path)


# ---- labels, reports, errors ----


@pytest.mark.parametrize(
    "name",
    ["camera_motion", "diving48", "hmdb51", "kinetics400", "kinetics600", "ntu60", "something_something_v2", "ucf101"],
)
def test_spelling_never_makes_two_classes_one(name):
    labels = read_labels(name)
    assert len({class_key(label) for label in labels}) == len(labels)


def test_labels_from_files(tmp_path):
    (tmp_path / "a.txt").write_text("run\njump\n\n")
    (tmp_path / "b.json").write_text('{"jump": "1", "run": "0"}')
    assert read_labels(tmp_path / "a.txt") == read_labels(tmp_path / "b.json") == ("run", "jump")
    for wrong in ('{"jump": 1, "run": 2}', '{"0": "1", "1": "0x"}', '{"jump": 1, "run": 1}'):
        (tmp_path / "b.json").write_text(wrong)
        with pytest.raises(AnnotationError, match="indices 0 to 1"):
            read_labels(tmp_path / "b.json")
    with pytest.raises(AnnotationError, match="occur twice"):
        read_labels(["run", "Run"])
    with pytest.raises(ValueError, match="kinetics400"):
        read_labels("no_such_set")


@pytest.mark.parametrize(("data", "expected"), [("folder", "a folder per class"), ("list", "a line per video")])
def test_nothing_there_is_said(tmp_path, data, expected):
    (tmp_path / "train.csv").write_text("\n")
    with pytest.raises(AnnotationError, match=rf"no classes of {data} train there; expected {expected}"):
        read_videos(data, tmp_path)


def test_report_lists_every_class_if_asked(tmp_path):
    touch(tmp_path, *(f"train/class {i:02}/{j}.mp4" for i in range(25) for j in range(i + 1)))
    videos = read_videos("folder", tmp_path)
    assert "1 to 25, median 13" in videos.report()
    assert "class 07" not in videos.report()
    assert "8 class 07" in videos.report(per_class=True)


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        ("ucf", {}, "Unknown data set: 'ucf'. Choose from: folder, list"),
        ("list", {}, "No train.csv or train.txt or train.tsv in"),
        ("folder", {"fold": 2}, "Unknown fold of folder: '2'. Choose from: none"),
        ("folder", {"split": "dev"}, "Unknown split of folder: 'dev'"),
    ],
)
def test_errors_say_what_to_do(tmp_path, data, options, message):
    with pytest.raises(TimesformerZooError, match=message):
        read_videos(data, touch(tmp_path, "a/b.mp4"), **options)


def test_no_such_folder(tmp_path):
    with pytest.raises(AnnotationError, match="no such folder"):
        read_videos("folder", tmp_path / "gone")


def test_every_data_set_has_files_for_every_split_and_says_what_it_is():
    for entry in DATASETS.values():
        assert entry.about
        assert not entry.files or set(entry.files) == set(entry.splits)


@pytest.mark.parametrize(
    "text",
    [
        "1 Apply Eye Makeup\n2 Archery\n3 run\n",  # UCF101's classInd.txt
        "id,name\n0,Apply Eye Makeup\n1,Archery\n2,run\n",
        '2,"run"\n0,"Apply Eye Makeup"\n1,Archery\n',
        "Apply Eye Makeup\r\nArchery\r\nrun\r\n",
    ],
)
def test_label_files(tmp_path, text):
    for name in ("labels.txt", "labels"):
        (tmp_path / name).write_text(text)
        assert read_labels(tmp_path / name) == ("Apply Eye Makeup", "Archery", "run")


def test_labels_that_begin_with_numbers_keep_them(tmp_path):
    (tmp_path / "a.txt").write_text("1 finger\n2 fingers\n3 fingers\n")
    assert read_labels(tmp_path / "a.txt") == ("1 finger", "2 fingers", "3 fingers")


def test_id2label(tmp_path):
    (tmp_path / "a.json").write_text('{"0": "run", "1": "jump"}')
    assert read_labels(tmp_path / "a.json") == ("run", "jump")


@pytest.mark.parametrize(
    ("data", "file", "text", "message"),
    [
        ("ucf101", "trainlist01.txt", "v_Archery_g01_c01.avi 3\n", "expected lines 'Class/video.avi' or"),
        (
            "hmdb51",
            "run_test_split1.txt",
            "a.avi train\n",
            "expected lines 'video.avi 1', with 0, 1 or 2, got 'a.avi tr",
        ),
        ("kinetics400", "train.csv", "youtube_id,time_start,time_end,split\na,0,10,train\n", "expected a column label"),
        ("kinetics400", "train.csv", "label,youtube_id,time_start,time_end,split\nrun,a,0,10,x\n", "split has 'x'"),
        (
            "kinetics400",
            "train.csv",
            "label,youtube_id,time_start,time_end\nrun,a,0,ten\n",
            "time_end is 'ten', expected s",
        ),
    ],
)
def test_published_files_that_are_odd(tmp_path, data, file, text, message):
    (tmp_path / file).write_text(text)
    with pytest.raises(AnnotationError, match=message):
        read_videos(data, tmp_path)
