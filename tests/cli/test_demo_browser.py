"""The page of `timesformer-zoo demo` in headless Chromium, as a user: upload, wait, read the result.

pytest -m browser, with playwright from PyPI and any Chromium or Chrome; DEMO_PICTURE=docs/figures/demo.png keeps the
picture that the documentation shows.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from shutil import copy, which
from typing import Any
from urllib.parse import urlsplit

import pytest
from demo_page import EMBEDDED, demo_page
from scenery import film

from timesformer_zoo import embed

pytestmark = pytest.mark.browser
sync_api = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
pytest.importorskip("gradio", reason="pip install '.[demo]'")

CHROMIUM = next(filter(None, map(which, ("chromium", "chromium-browser", "google-chrome"))), None)
WAIT = 60_000  # milliseconds


@pytest.fixture(scope="module")
def footage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """holiday.mp4, what is none, and a library, in which another copy of it lies."""
    folder = tmp_path_factory.mktemp("footage")
    film(folder / "holiday.mp4", "right in static left", seed=5)
    film(folder / "long.mp4", "static", seed=2, seconds=31)
    data = (folder / "holiday.mp4").read_bytes()
    (folder / "damaged.mp4").write_bytes(data[: len(data) // 2])
    (folder / "notes.mp4").write_text("not a video", "utf-8")
    (folder / "notes.txt").write_text("not a video", "utf-8")
    (folder / "large.mp4").write_bytes(os.urandom(2_500_000))
    films = {"sea": "right static", "valley": "left static", "summit": "in static", "lake": "left", "forest": "in"}
    videos = [film(folder / f"{name}.mp4", films[name], 7 + i, 2) for i, name in enumerate(films)]
    videos.append(Path(copy(folder / "holiday.mp4", folder / "last year.mp4")))
    embed(EMBEDDED, videos, folder / "library")
    return folder


@pytest.fixture(scope="module")
def address(footage: Path, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    options = ["--library", str(footage / "library"), "--model", EMBEDDED, "--model", str(folder)]
    options += ["--max-size", "2", "--max-length", "0.5"]
    with demo_page(tmp_path_factory.mktemp("temporary"), *options) as address:
        yield address


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Any, address: str) -> Iterator[Any]:
    """The page, freshly opened. Nothing of it comes from another machine, and nothing of it fails."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    asked, said = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: said.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto(address)
    page.get_by_role("button", name="Look at it").wait_for(timeout=WAIT)
    yield page
    page.close()
    hosts = {urlsplit(url).netloc for url in asked if not url.startswith(("data:", "blob:"))}
    assert hosts == {urlsplit(address).netloc}
    assert not [text for text in said if "413" not in text]  # of an upload that is refused


def give(page: Any, path: Path) -> None:
    page.locator("input[type=file]").set_input_files(str(path))


def look(page: Any, path: Path) -> None:
    give(page, path)
    page.locator("video").wait_for(timeout=WAIT)
    page.get_by_role("button", name="Look at it").click()


def test_a_user_uploads_a_video_waits_and_reads_the_result(page: Any, footage: Path, tmp_path: Path) -> None:
    look(page, footage / "holiday.mp4")
    page.get_by_text("Done: 0:12.0 of video").wait_for(timeout=WAIT)
    table = page.get_by_role("table").inner_text()
    rows = [row.split("\t") for row in table.splitlines()[1:]]
    assert [row[1] for row in rows if len(row) > 1] == ["pan right", "zoom in", "static", "pan left"]
    assert page.get_by_test_id("label-output-value").inner_text().strip() == "pan left"
    assert page.get_by_alt_text("above its map").count() == 8
    neighbours = page.locator(".gallery").last.get_by_role("listitem")
    assert neighbours.count() == 6
    assert "last year.mp4" in neighbours.first.inner_text()
    assert "(similarity 1.00)" in neighbours.first.inner_text()
    assert all(picture.get_attribute("alt") for picture in page.locator(".tz img").all())
    sizes = page.locator(".tz img").evaluate_all("pictures => pictures.map(p => p.complete && p.naturalWidth)")
    assert all(sizes)
    page.evaluate("scrollTo(0, 0)")
    page.wait_for_timeout(500)
    page.screenshot(path=os.environ.get("DEMO_PICTURE", tmp_path / "demo.png"), full_page=True)


def test_the_chosen_model_is_asked(page: Any, footage: Path, folder: Path) -> None:
    assert str(folder) not in page.content()
    page.get_by_role("radio", name=folder.name).check()
    look(page, footage / "holiday.mp4")
    page.get_by_text("Done: 0:12.0 of video").wait_for(timeout=WAIT)
    assert page.get_by_test_id("label-output-value").inner_text().strip() in ("run", "jump", "sit", "stand", "fall")


def test_a_keyboard_is_enough(page: Any, footage: Path) -> None:
    give(page, footage / "holiday.mp4")
    page.locator("video").wait_for(timeout=WAIT)
    for _ in range(30):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.innerText") == "Look at it":
            break
    page.keyboard.press("Enter")
    page.get_by_text("Done: 0:12.0 of video").wait_for(timeout=WAIT)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("damaged.mp4", "damaged.mp4: "),
        ("notes.mp4", "notes.mp4: there is no video in it"),
        ("long.mp4", "long.mp4: it is too long: 0:31.0, expected at most 0:30.0"),
    ],
)
def test_what_fails_is_said_on_the_page(page: Any, footage: Path, name: str, words: str) -> None:
    look(page, footage / name)
    alert = page.locator(".tz[role=alert]")
    alert.wait_for(timeout=WAIT)
    assert words in alert.inner_text()
    assert "/" not in alert.inner_text()
    assert "Traceback" not in page.content()


@pytest.mark.parametrize(
    ("name", "words"), [("large.mp4", "exceed the maximum allowed size"), ("notes.txt", "Invalid file type")]
)
def test_what_is_no_video_or_too_large_is_not_taken(page: Any, footage: Path, name: str, words: str) -> None:
    give(page, footage / name)
    page.get_by_text(words).wait_for(timeout=WAIT)


def test_without_a_video_the_button_says_what_to_do(page: Any) -> None:
    page.get_by_role("button", name="Look at it").click()
    page.get_by_text("There is no video yet: upload one").wait_for(timeout=WAIT)


def test_two_users_at_once_read_their_own_results(page: Any, browser: Any, address: str, footage: Path) -> None:
    other = browser.new_page()
    other.goto(address)
    look(page, footage / "holiday.mp4")
    look(other, footage / "notes.mp4")
    other.get_by_text("notes.mp4: there is no video in it").wait_for(timeout=WAIT)
    page.get_by_text("Done: 0:12.0 of video").wait_for(timeout=WAIT)
    other.close()
