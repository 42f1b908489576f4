"""`trm vote report`, for those who work in a checkout."""

import sys

from modeling_trm.commands.vote_report import main

if __name__ == "__main__":
    sys.exit(main())
