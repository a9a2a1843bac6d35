"""The benchmarks run, in tiny; what they measure with is right. No times are tested."""

import math
import sys
from datetime import date
from functools import partial
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models import get_model_weights

from timesformer_zoo import CHECKPOINTS

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import claims  # noqa: E402
import draw_claims  # noqa: E402
import faithfulness  # noqa: E402
import forward  # noqa: E402
import gpu  # noqa: E402
import growth  # noqa: E402
import hotspots  # noqa: E402
import hour  # noqa: E402
import loader  # noqa: E402
import measuring  # noqa: E402
import minute  # noqa: E402
import peers  # noqa: E402
import products  # noqa: E402
import quantize  # noqa: E402
import results  # noqa: E402
import scale  # noqa: E402
import search  # noqa: E402
import startup  # noqa: E402
import timelines  # noqa: E402
import training  # noqa: E402

MODES = ["space_only", "joint", "divided", "local_global", "axial", "frozen"]
SMALL = peers.Case("base_divided", 8, 224).quick()


@pytest.mark.parametrize(
    ("script", "row", "options", "filled"),
    [
        (forward, "hr divided 16x448", [], "all"),
        (growth, "16 frames of 224 px", [], "all"),
        (training, "base 8x224, ours checkpointed", [], "all"),
        (training, "base axial 8x224, without checkpointing", [], "first"),
        (training, "base 8x224, bfloat16, neither", [], "all"),
        (hotspots, "base divided 8x224", [], "all"),
        (startup, "load base, saved by this package", [], "all"),
        (startup, "load base, released file", [], "all"),
        (startup, "carphone_pristine.mp4 to 3 views", [], "all"),
        (hour, "all of it", [], "all"),
        (loader, "training, 340x256", [], "first"),
        (loader, "evaluation, 340x256", [], "first"),
        (quantize, "bfloat16", [], "all"),
        (search, "exact, 160 wide", [], "first"),
        (quantize, "int8, torch.ao*", [], "all"),
        (faithfulness, "relevance", [], "all"),
        (faithfulness, "random", [], "all"),
        (claims, "TimeSformer base", [], "all"),
        (claims, "R3D-18", [], "all"),
        (minute, "96 frames, divided", [], "all"),
        (minute, "96 frames, joint", [], "first"),
        (timelines, "an hour, 640 x 360", [], "all"),
        (gpu, "base divided 8x224, batch 8, forward", ["--device", "cpu", "--eager-only"], "first"),
        (gpu, "base divided 8x224, batch 1, training", ["--device", "cpu", "--eager-only"], "first"),
        (gpu, "bfloat16, 16 tokens", ["--device", "cpu"], "all"),
        (gpu, "transformers, training", ["--device", "cpu"], "all"),
        (gpu, "base divided 8x224, batch 1, bfloat16", ["--device", "cpu", "--eager-only"], "first"),
    ],
)
@pytest.mark.filterwarnings("ignore:torch.quantize_per:UserWarning", "ignore:torch.ao:DeprecationWarning")
def test_a_row_of_each_script(script, row: str, options: list[str], filled: str, capsys: pytest.CaptureFixture) -> None:
    tables = getattr(script, "TABLES", None) or [script.TABLE]
    more = {"add_arguments": script.add_arguments} if hasattr(script, "add_arguments") else {}
    measured = results.run(script.__doc__, tables, ["--quick", "--rows", row, *options], **more)
    rows = [cells for table in measured.values() for cells in table.values()]
    assert len(rows) == 1
    table = next(table for table in tables if measured[table.name])
    assert len(rows[0]) == len(table.columns)
    assert all(rows[0]) if filled == "all" else rows[0][0]
    assert f"| {rows[0][0]} |" in capsys.readouterr().out


@pytest.mark.parametrize("mode", MODES)
def test_operations_are_those_that_torch_counts(mode: str) -> None:
    case = peers.Case(f"base_{mode}", 3, 48, batch=2, small=True)
    model = peers.create(case).eval()
    for block in model.blocks:
        for step in block.steps.values():
            step.fused_attn = False  # a fused kernel may be unknown to the counter
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(peers.clip(case))
    assert products.operations(case, fused=False) == counter.get_total_flops()
    folds = any(step.linear for step in model.attention.steps[:-1])
    assert (products.operations(case) < products.operations(case, fused=False)) == folds


@pytest.mark.parametrize(
    "name", ["TimeSformer base", "TimeSformer hr", "TimeSformer l", "R3D-18", "MViTv2-S", "Swin3D-B"]
)
def test_published_tflops_are_counted(name: str) -> None:
    """The paper's 0.59, 5.11 and 7.14 (table 5): multiply-adds of the whole network in three views."""
    entry = claims.ENTRIES[name]
    counted = math.prod(entry.views) * claims.multiply_adds(entry) / 1e12
    assert counted == pytest.approx(entry.tflops, rel=5e-3)
    if entry.case:  # our inference folds a linear layer into another, and computes no patches that nobody sees
        assert 0.89 < 3 * products.operations(entry.case) / 2e12 / counted < 0.91


def test_published_accuracies_are_those_that_come_with_the_weights() -> None:
    for name, entry in claims.ENTRIES.items():
        if entry.case:
            assert entry.top1 == CHECKPOINTS[f"timesformer_{entry.case.model}.k400"].top1
        elif entry.needs == "torchvision":
            weights = get_model_weights(entry.create.args[0])["KINETICS400_V1"]
            assert entry.top1 == weights.meta["_metrics"]["Kinetics-400"]["acc@1"], name
            assert claims.parameters(entry) == weights.meta["num_params"], name


def test_the_page_of_the_claims_has_the_measured_figures() -> None:
    page = (BENCHMARKS.parent / "docs" / "efficiency.md").read_text()
    columns = next(line for line in page.splitlines() if line.startswith("| claims |")).strip("| ").split(" | ")[1:]
    measured = _section(results.RESULTS.read_text(), "claims")
    told = {name: cells for name, cells in results.read_rows(page).items() if name in measured}
    assert set(told) == set(measured)
    for name, cells in told.items():
        assert cells == [measured[name][claims.COLUMNS.index(column)] for column in columns], name


def test_the_picture_of_the_claims(tmp_path: Path) -> None:
    rows = {name: [""] * len(claims.COLUMNS) for name in claims.ENTRIES}  # most were not measured
    for name, tflops, accuracy, video in [
        ("Swin3D-T", "1.05", "77.7", "9"),
        ("TimeSformer l", "7.1 (6.4 run)", "80.6", ""),
    ]:
        for column, cell in [("TFLOPs, counted", tflops), ("K400 top-1, %", accuracy), ("a video, s", video)]:
            rows[name][claims.COLUMNS.index(column)] = cell
    expected = {"Swin3D-T": (1.05, 77.7), "TimeSformer l": (7.1, 80.6)}
    assert draw_claims.points(rows, "TFLOPs, counted") == expected
    assert draw_claims.points(rows, "a video, s") == {"Swin3D-T": (9.0, 77.7)}
    draw_claims.draw(rows, tmp_path / "figures" / "claims.png")
    assert (tmp_path / "figures" / "claims.png").stat().st_size > 1000


def test_peers_that_differ_are_not_timed() -> None:
    logits = torch.randn(2, 10)
    with pytest.raises(AssertionError, match="not close"):
        peers.largest_difference(SMALL, logits, logits + 1e-3)
    with pytest.raises(AssertionError, match="hardly vary"):
        peers.largest_difference(SMALL, logits * 0, logits * 0)


def test_models_are_the_same_in_every_process() -> None:
    first, second = peers.create(SMALL).state_dict(), peers.create(SMALL).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert all(tensor.any() for tensor in first.values())  # nothing is zero, so everything matters


def test_ratio_is_taken_turn_by_turn() -> None:
    assert measuring.ratio([2.0, 20.0, 6.0], [1.0, 10.0, 2.0]) == 2.0


@pytest.mark.skipif(sys.platform != "linux", reason="resident memory is read from /proc")
def test_working_memory_in_a_fresh_process() -> None:
    grown = measuring.in_fresh_process(measuring.working_memory, partial(bytearray, 64 * measuring.MIB))
    assert grown is not None
    assert 63 < grown / measuring.MIB < 80  # the system counts pages in batches


def test_allocated_memory_is_that_of_the_tensors_held_at_once() -> None:
    def one_after_the_other() -> torch.Tensor:
        first = torch.zeros(measuring.MIB)  # 4 MiB
        both = first + 1
        del first
        return both * 2

    held = measuring.allocated_memory(one_after_the_other)
    assert 8 * measuring.MIB <= held < 8 * measuring.MIB + 1000  # and the number 2
    assert measuring.allocated_memory(lambda: None) == 0


def test_sections_are_replaced_and_other_rows_kept(tmp_path: Path) -> None:
    file = tmp_path / "results.md"
    file.write_text("before\n<!-- begin t -->\nold\n<!-- end t -->\nafter\n")
    table = results.Table("t", ("x",), {"a": 1, "b": 2}, lambda entry, options: [""], lambda entry, options: 0.0)
    results.write_section(file, table, {"b": ["7"]}, "first")
    results.write_section(file, table, {"a": ["5"]}, "second")
    text = file.read_text()
    assert text.startswith("before\n<!-- begin t -->\n")
    assert text.endswith("<!-- end t -->\nafter\n")
    assert "old" not in text
    assert "first" not in text
    assert results.environment() in text
    rows = results.read_rows(text)
    assert [rows["a"][0], rows["b"][0]] == ["5", "7"]
    file.write_text(text.replace("Python", "Another Python"))
    results.write_section(file, table, {"a": ["6"]}, "third")
    assert results.read_rows(file.read_text())["b"] == ["", ""]  # another machine's
    with pytest.raises(ValueError, match="no section"):
        results.write_section(file, results.Table("u", (), {}, table.measure, table.estimate), {}, "")


def test_what_another_machine_measured_is_written_as_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, saved = tmp_path / "results.md", tmp_path / "t.json"
    file.write_text("<!-- begin t -->\n<!-- end t -->\n")
    monkeypatch.setattr(results, "RESULTS", file)
    table = results.Table("t", ("x",), {"a": 1, "b": 2}, lambda entry, options: ["7"], lambda entry, options: 0.0)
    assert results.run("", [table], ["--rows", "a", "--out", str(saved)]) == {"t": {"a": ["7"]}}
    saved.write_text(
        saved.read_text().replace(results.environment(), "Its own.").replace(str(date.today()), "1999-12-31")
    )
    assert results.run("", [table], ["--from", str(saved), "--write"]) == {"t": {"a": ["7"]}}
    text = file.read_text()
    assert "Machine: Its own." in text
    assert results.read_rows(text) == {"a": ["7", "1999-12-31"], "b": ["", ""]}


def test_every_table_has_a_section() -> None:
    text = results.RESULTS.read_text()
    tables = [script.TABLE for script in (forward, training, startup, hour, loader, hotspots, quantize, claims, minute)]
    tables.append(timelines.TABLE)
    tables += growth.TABLES + gpu.TABLES
    for table in tables:
        assert f"<!-- begin {table.name} -->" in text
        assert len({len(table.columns)} | {len(cells) - 1 for cells in _section(text, table.name).values()}) == 1


def _section(text: str, name: str) -> dict[str, list[str]]:
    return results.read_rows(text.partition(f"<!-- begin {name} -->")[2].partition(f"<!-- end {name} -->")[0])


def test_options_that_make_no_sense(capsys: pytest.CaptureFixture) -> None:
    for arguments, message in [(["--rows", "no"], "no row matches"), (["--quick", "--write"], "leave out --write")]:
        with pytest.raises(SystemExit):
            results.run("", [forward.TABLE], arguments)
        assert message in capsys.readouterr().err


def test_what_many_videos_cost(capsys: pytest.CaptureFixture[str]) -> None:
    scale.main(["--quick", "--videos", "3600"])
    row = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("| tiny, once"))
    *_, clips, read, classify, read_hours, classify_hours = [cell.strip() for cell in row.strip("| ").split("|")]
    assert clips == "3"
    assert abs(float(read) - float(read_hours)) < 0.51  # an hour a second
    assert abs(float(classify) - float(classify_hours)) < 0.51
