"""`trm pack-checkpoint`, for those who work in a checkout."""

import sys

from modeling_trm.commands.pack_checkpoint import main

if __name__ == "__main__":
    sys.exit(main())
