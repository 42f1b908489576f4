"""`trm train`, for `accelerate launch --config_file scripts/accelerate.yaml scripts/train.py RECIPE`."""

import sys

from modeling_trm.commands.train import main

if __name__ == "__main__":
    sys.exit(main())
