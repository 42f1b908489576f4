"""`trm measure-card`, for those who work in a checkout."""

import sys

from modeling_trm.commands.measure_card import main

if __name__ == "__main__":
    sys.exit(main())
