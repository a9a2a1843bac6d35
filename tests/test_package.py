"""What importing the package does and does not do."""

import subprocess
import sys
from importlib.metadata import version

import timesformer_zoo


def run(code: str) -> str:
    """The output of a fresh interpreter."""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_import_is_light() -> None:
    code = (
        "import sys, timesformer_zoo;"
        "heavy = ['decord', 'matplotlib', 'transformers', 'accelerate', 'tensorboard', 'lightning', 'onnx', 'peft'];"
        "print([name for name in heavy if name in sys.modules])"
    )
    assert run(code) == "[]"


def test_import_registers_with_timm() -> None:
    assert run("import timm; print(len(timm.list_models('timesformer_*')))") == "0"
    assert run("import timm, timesformer_zoo; print(len(timm.list_models('timesformer_*')))") == "20"


def test_import_leaves_timm_as_it_was() -> None:
    code = (
        "import timm; before = {n: timm.models.model_entrypoint(n) for n in timm.list_models()};"
        "import timesformer_zoo;"
        "print(all(timm.models.model_entrypoint(n) is f for n, f in before.items()))"
    )
    assert run(code) == "True"


def test_public_names_exist() -> None:
    for name in timesformer_zoo.__all__:
        assert getattr(timesformer_zoo, name) is not None


def test_version_is_the_packages() -> None:
    assert timesformer_zoo.__version__ == version("timesformer-zoo")
