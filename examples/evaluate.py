"""Evaluate a model on a data set: `timesformer-zoo evaluate` as a script, for launchers that want one.

    python examples/evaluate.py run/model videos/ --out run
    accelerate launch --num_processes 4 examples/evaluate.py timesformer_base_divided.k400 k400/ --data kinetics400

The commands for the published numbers are in docs/published_numbers.md.
"""

import sys

from timesformer_zoo_cli import main

if __name__ == "__main__":
    sys.exit(main(["evaluate", *sys.argv[1:]]))
