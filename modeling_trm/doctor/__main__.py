"""Say what this machine has, which paths a model takes on it and why, and what to do about what is missing.

examples:
  trm doctor                                 or python -m modeling_trm.doctor
  trm doctor --json > machine.json
  trm doctor MODEL                           and whether its weights are those that its metrics.json names

Nothing is written or sent, and nothing downloaded but a MODEL of the Hub; a token is never shown. Exit
code 0 if a model can run here, 1 otherwise.
"""

import argparse
import sys
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    summary, _, epilog = str(__doc__).partition("\n\n")
    parser = argparse.ArgumentParser(
        prog="trm doctor", description=summary, epilog=epilog, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "checkpoints", nargs="*", metavar="MODEL", help="folders or Hub ids, whose weights are verified"
    )
    parser.add_argument(
        "--import",
        dest="imports",
        action="append",
        default=[],
        metavar="FILE.py",
        help="read this file first, which registers operators of your own; may be given several times",
    )
    parser.add_argument("--json", action="store_true", help="print JSON: can_run, and findings with what to do")
    arguments = parser.parse_args(argv)
    from .examination import report

    if arguments.imports:
        from ..operator_files_trm import import_operators

        try:
            for file in arguments.imports:
                import_operators(file)
        except (OSError, ValueError) as error:
            parser.error(f"--import: {error}")
    return report(arguments.json, arguments.checkpoints)


if __name__ == "__main__":
    sys.exit(main())
