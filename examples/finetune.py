"""Fine-tune a model on a data set: `timesformer-zoo finetune` as a script, for launchers that want one.

    python examples/finetune.py videos/ --out run --model timesformer_base_divided.k400
    accelerate launch --num_processes 4 examples/finetune.py videos/ --out run
    accelerate launch --config_file fsdp.yaml examples/finetune.py videos/ --out run      # FSDP, several machines

`videos/` has a folder per class. Other data sets, recipes and settings: --help. Run again after an interruption, it
goes on from the last training state in run/, to the same result.
"""

import sys

from timesformer_zoo_cli import main

if __name__ == "__main__":
    sys.exit(main(["finetune", *sys.argv[1:]]))
