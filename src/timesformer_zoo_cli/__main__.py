"""`python -m timesformer_zoo_cli`."""

import sys

from timesformer_zoo_cli import main

if __name__ == "__main__":
    sys.exit(main())
