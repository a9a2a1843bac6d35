"""Fine-tune a model on a data set: `timesformer-zoo finetune` as a script, for launchers that want one.

    python examples/finetune.py videos/ --out run --model timesformer_base_divided.k400
    accelerate launch --num_processes 4 examples/finetune.py videos/ --out run
    accelerate launch --config_file fsdp.yaml examples/finetune.py videos/ --out run      # FSDP, several machines

`videos/` has a folder per class. Other data sets, recipes and settings: --help. Run again after an interruption, it
goes on from the last checkpoint in run/, to the same result.
"""

from argparse import ArgumentParser, RawDescriptionHelpFormatter

from timesformer_zoo import training

if __name__ == "__main__":
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    training.add_arguments(parser)
    training.run(parser.parse_args())
