"""`python -m modeling_trm.commands` is `trm`, for torchrun and accelerate launch: torchrun -m modeling_trm.commands vote ..."""

import sys

from .trm import main

if __name__ == "__main__":
    sys.exit(main())
