"""`trm sweep`, for those who work in a checkout."""

import sys

from modeling_trm.commands.sweep import main

if __name__ == "__main__":
    sys.exit(main())
