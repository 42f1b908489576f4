"""`trm adapt`, for `accelerate launch --config_file scripts/accelerate.yaml scripts/adapt.py ...`."""

import sys

from modeling_trm.commands.adapt import main

if __name__ == "__main__":
    sys.exit(main())
