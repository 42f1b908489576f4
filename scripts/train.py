"""`trm train`, for `accelerate launch scripts/train.py RECIPE`."""

import sys

from modeling_trm.commands.train import main

if __name__ == "__main__":
    sys.exit(main())
