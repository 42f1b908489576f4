"""`trm compare-recipes`, for those who work in a checkout."""

import sys

from modeling_trm.commands.compare_recipes import main

if __name__ == "__main__":
    sys.exit(main())
