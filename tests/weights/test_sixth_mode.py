"""A mode of existing steps in another order is one member of AttentionMode, and nothing else in the code.

A copy of the package gets two: the paper's ablation, space before time, and an axial one whose parameters have the same
names as axial's. A fresh process then does with them whatever is done with a mode.
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import timesformer_zoo

MEMBERS = """
    SPACE_TIME_ORDER = "space_time_order", (SPACE, TIME)
    WIDTH_FIRST = "width_first", (WIDTH, TIME, HEIGHT)
"""

SCRIPT = """
import sys, timm, torch
from pathlib import Path
from safetensors.torch import save_file
from timesformer_zoo import (
    AttentionMode, CheckpointError, TimeSformer, attention_maps, checkpoint_filter_fn, convert, init_from_vit,
    load_model, rollout, save_pretrained,
)

HERE = Path("timesformer_zoo").resolve()
assert Path(sys.modules["timesformer_zoo"].__file__).parent == HERE
SMALL = dict(img_size=32, patch_size=16, num_frames=4, num_classes=5, embed_dim=32, depth=2, num_heads=4)
clip = torch.randn(2, 3, 4, 32, 32)

def same(a, b):
    a, b = a.state_dict(), b.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)

def refusal(call):
    try:
        call()
    except ValueError as error:
        return str(error)
    raise AssertionError("not refused")

def trained(mode, **changes):
    model = timm.create_model("timesformer_tiny_divided", attention=mode, **{**SMALL, **changes})
    with torch.no_grad():
        for parameter in model.parameters():  # also those that start at zero, and would hide others from the first step
            parameter.normal_(std=0.2)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model(torch.randn(2, 3, 4, 32, 32)).square().sum().backward()
    optimizer.step()
    assert all(not torch.equal(before[f"blocks.0.{key}"], value) for key, value in model.blocks[0].named_parameters())
    return model.eval()

for mode, twin in [("space_time_order", "divided"), ("width_first", "axial")]:
    model = trained(mode)
    steps = [step.name for step in AttentionMode(mode).steps]
    assert [list(block.steps) for block in model.blocks] == [steps, steps]
    assert not torch.equal(model(clip), TimeSformer(attention=twin, **SMALL).eval()(clip))

    folder = save_pretrained(model, mode)
    for again in (load_model(folder), timm.create_model(f"local-dir:{folder}", pretrained=True)):
        assert again.attention == mode and same(again, model) and torch.equal(again.eval()(clip), model(clip))
    fresh = TimeSformer(attention=mode, **SMALL)
    fresh.load_state_dict(model.state_dict())
    assert same(fresh, model)
    fresh = TimeSformer(attention=mode, **SMALL | dict(num_frames=8))
    fresh.load_state_dict(checkpoint_filter_fn(model.state_dict(), fresh))
    assert fresh.time_embed.shape[1] == 8
    assert same(load_model(convert(folder, f"{mode}-again", "native")), model)
    assert mode in refusal(lambda: convert(folder, f"{mode}-theirs", "transformers"))

    vit = timm.models.VisionTransformer(img_size=32, num_classes=5, embed_dim=32, depth=2, num_heads=4)
    init_from_vit(fresh, vit)
    assert all(torch.equal(fresh.blocks[1].steps[step].qkv.weight, vit.blocks[1].attn.qkv.weight) for step in steps)

    assert {key.split(".")[2] for key in attention_maps(model, clip)} == set(steps)
    assert rollout(model, clip).shape == (2, 4, 2, 2)
    program = torch.export.export(model, (clip,), dynamic_shapes={"x": {0: torch.export.Dim("batch")}}).module()
    torch.testing.assert_close(program(clip[:1]), model(clip[:1]))

# Which step has an fc tells the order where the last step is another.
ours = trained("space_time_order", embed_dim=768, num_heads=12)
save_file(ours.state_dict(), "bare.safetensors")
assert same(load_model(convert("bare.safetensors", "bare", "native")), ours)
assert "hold space_time_order attention, the model has divided" in refusal(
    lambda: TimeSformer(**ours.model_args | dict(attention="divided")).load_state_dict(ours.state_dict())
)
assert "hold divided attention, the model has space_time_order" in refusal(
    lambda: ours.load_state_dict(TimeSformer(**ours.model_args | dict(attention="divided")).state_dict())
)
# Where it is the same one, nothing does: the keys of one are those of the other.
ours = trained("axial", embed_dim=160)
save_file(ours.state_dict(), "bare.safetensors")
told = refusal(lambda: convert("bare.safetensors", "axial", "native"))
assert "fit axial and width_first attention: name a model" in told, told
assert same(load_model(convert("bare.safetensors", "axial", "native", model="timesformer_tiny_axial")), ours)
told = refusal(lambda: TimeSformer(**ours.model_args | dict(attention="joint")).load_state_dict(ours.state_dict()))
assert "hold axial or width_first attention, the model has joint" in told, told
print("done")
"""


def test_another_order_of_steps_is_one_member(tmp_path: Path) -> None:
    package = tmp_path / "timesformer_zoo"
    shutil.copytree(Path(timesformer_zoo.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    modes = package / "model" / "attention.py"
    code, found = re.subn(r"(\n    AXIAL = .*\n)", rf"\1{MEMBERS[1:]}", modes.read_text("utf-8"))
    assert found == 1
    modes.write_text(code, "utf-8")
    (tmp_path / "script.py").write_text(SCRIPT, "utf-8")
    done = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "done\n"
