"""Make a checkpoint's probabilities mean something on real footage: two numbers, folded into its head.

    python examples/camera_motion/calibrate.py run/camera_motion.safetensors out.safetensors

Training shows every class about as often as it can be learnt; in films most windows rest. `--static` is added to the
logit of "static" for that, and all logits are then divided by `--temperature`, since soft targets make a model less
sure than it is right. Choose both on footage that is for validation: `evaluate_footage.py --footage` prints what they
do.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from camera_paths import STATIC
from tiny_model import load_weights, read_about, save_weights


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--static", type=float, default=2.0, help="added to the logit of static")
    parser.add_argument("--temperature", type=float, default=0.7, help="what all logits are divided by, then")
    args = parser.parse_args()
    model, _ = load_weights(args.weights)
    head = model.head
    head.bias.data[STATIC] += args.static
    head.weight.data /= args.temperature
    head.bias.data /= args.temperature
    calibration = {"static": args.static, "temperature": args.temperature}
    save_weights(model, args.out, {**read_about(args.weights), "calibration": calibration})


if __name__ == "__main__":
    main()
