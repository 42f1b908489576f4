"""`trm compare`, for those who work in a checkout."""

import sys

from modeling_trm.commands.compare import main

if __name__ == "__main__":
    sys.exit(main())
