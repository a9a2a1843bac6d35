"""The launch lines of docs/training_on_many_machines.md, as they stand there but for sizes, on CPUs of this machine."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from footage import films_by_class
from safetensors.torch import load_file
from torch.testing import assert_close

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "training_on_many_machines.md").read_text("utf-8")
BLOCKS = re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)
SMALLER = {
    "--num_processes 16": "--num_processes 2",
    "num_processes: 4": "num_processes: 2",
    "--num_processes 4": "--num_processes 2",
    "--nproc_per_node 4": "--nproc_per_node 2",
    "--nproc_per_node 8": "--nproc_per_node 1",
    "mixed_precision: bf16": "mixed_precision: 'no'",
    " --amp bf16": "",
    "10.0.0.1": "127.0.0.1",
    "finetune videos/": "finetune videos/ --scratch --model timesformer_tiny_divided --img-size 32 --num-frames 4 "
    "--workers 1 --epochs 1 --batch-size 4 --warmup 0 --lr 1e-4",
}
# What a cluster has: it runs its command on each of two machines, and knows their names.
STUBS = {"srun": '"$@" & FIRST=$!; "$@"; CODE=$?; wait $FIRST && exit $CODE', "scontrol": "echo 127.0.0.1"}
pytestmark = pytest.mark.slow


def smaller(text):
    for large, small in SMALLER.items():
        text = text.replace(large, small)
    return text


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with videos/, fsdp.yaml, and the result of one process in one/."""
    folder = tmp_path_factory.mktemp("place")
    films_by_class(folder / "videos", 4)
    (folder / "fsdp.yaml").write_text(smaller(re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)[0]))
    (folder / "bin").mkdir()
    for name, script in STUBS.items():
        (folder / "bin" / name).write_text(f"#!/bin/bash\n{script}\n")
        (folder / "bin" / name).chmod(0o755)
    (folder / "bin" / "sitecustomize.py").write_text(
        "import os\nif 'LOCAL_RANK' in os.environ and 'ACCELERATE_USE_FSDP' in os.environ:\n"
        "    import ranks\n    ranks.shard_on_cpus()\n"
    )
    run(folder, smaller("python -m timesformer_zoo_cli finetune videos/ --out run"), "one")
    return folder


def run(folder, script, out):
    """A script of bash; its lines run beside each other if they are two machines'."""
    path = os.pathsep.join([str(folder / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]])
    python = os.pathsep.join([str(folder / "bin"), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")])
    env = dict(PATH=path, PYTHONPATH=python, ACCELERATE_USE_CPU="true", SLURM_NNODES="2", SLURM_JOB_ID="1")
    command = ["bash", "-c", script.replace("--out run", f"--out {out}")]
    done = subprocess.run(command, cwd=folder, env={**os.environ, **env}, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"model in {out}/model" in done.stdout
    return done


@pytest.mark.parametrize("block", range(len(BLOCKS)))
def test_every_line_gives_what_one_process_gives(place, block):
    script = smaller(BLOCKS[block])
    if "--machine_rank" in script:
        first, second = script.splitlines()
        scripts = [f"{first} & {second} && wait $!"]
    elif "srun" in script:
        scripts = [script]
    else:
        scripts = script.splitlines()
    for number, one_script in enumerate(scripts):
        out = f"run{block}{number}"
        run(place, one_script, out)
        weights, expected = (load_file(place / name / "model" / "model.safetensors") for name in (out, "one"))
        assert_close(weights, expected, rtol=1e-5, atol=1e-5)
        parts = list((place / out / "checkpoints").glob("step-*/*.distcp"))
        assert len(parts) == 2  # each process has written its own
