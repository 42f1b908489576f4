"""`trm build-data`, for those who work in a checkout."""

import sys

from modeling_trm.commands.build_data import main

if __name__ == "__main__":
    sys.exit(main())
