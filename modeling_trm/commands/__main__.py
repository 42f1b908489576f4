"""`python -m modeling_trm.commands` is `trm`: what torchrun and `accelerate launch` can start with -m."""

import sys

from .trm import main

if __name__ == "__main__":
    sys.exit(main())
