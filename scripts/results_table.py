"""The table of results, ours and the published ones, made of the cards' metrics.json; no figure of ours is typed.

examples:
  python scripts/results_table.py                            prints it, as the README has it
  python scripts/results_table.py --full                     every evaluation of ours, as the documentation has it
  python scripts/results_table.py --update README.md         puts it between the two marker comments there

Published figures, with their sources, are in modeling_trm/cards/published.yaml.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    summary, _, epilog = __doc__.partition("\n\n")
    parser = argparse.ArgumentParser(
        description=summary, epilog=epilog, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cards", default="model_cards", metavar="DIR", help="of checkpoints (default: %(default)s)")
    parser.add_argument("--full", action="store_true", help="every evaluation, not only the comparable one")
    parser.add_argument("--update", metavar="FILE.md", help="write the table into this file as well")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parse_arguments(argv)
    from modeling_trm.cards.results_table import results_table, update_text
    from modeling_trm.utils.cli import user_errors
    from modeling_trm.utils.files import write_text

    with user_errors(OSError, ValueError):
        table = results_table(arguments.cards, full=arguments.full)
        print(table)
        if arguments.update is not None:
            page = Path(arguments.update)
            try:
                text = update_text(page.read_text(encoding="utf-8"), table)
            except ValueError as error:
                raise ValueError(f"{page}: {error}") from error
            write_text(page, text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
