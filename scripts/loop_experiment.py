"""`trm loop-experiment`, for those who work in a checkout."""

import sys

from modeling_trm.commands.loop_experiment import main

if __name__ == "__main__":
    sys.exit(main())
