"""`trm adapt`, for `accelerate launch scripts/adapt.py ...`."""

import sys

from modeling_trm.commands.adapt import main

if __name__ == "__main__":
    sys.exit(main())
