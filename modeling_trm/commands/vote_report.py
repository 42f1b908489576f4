"""Report on the votes of an evaluation: pass@K with intervals, coverage, submission file; or compare two models.

examples:
  trm vote report runs/arc/records --output runs/arc/report
  trm vote report runs/part-0/records runs/part-1/records --output runs/arc/report      parts of one evaluation
  trm vote report runs/a/records --compare runs/b/records --names hybrid attention --output runs/a-and-b
  trm vote report runs/step-1000/records runs/step-2000/records --accumulate --output runs/ensemble

Writes report.json, report.md, plots/*.png and, for arc, submission.json; with --compare also comparison.json,
comparison.md and a plot of both. Runs no model. Exit code 0 only when everything was written.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from .options import CommandParser, add_output, add_seed, print_written, require_at_least


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = CommandParser("vote report", __doc__)
    parser.add_argument("records", nargs="+", metavar="RECORDS", help="folders of votes, merged")
    add_output(parser, "the report")
    parser.add_argument("--compare", nargs="+", metavar="RECORDS", help="folders of another model's votes, same inputs")
    parser.add_argument(
        "--names", nargs=2, metavar=("NAME", "NAME"), help="of the two models compared (default: their first folders)"
    )
    parser.add_argument(
        "--accumulate", action="store_true", help="let votes of several checkpoints add up: an ensemble, and named so"
    )
    add_seed(parser)
    arguments = parser.parse_args(argv)
    require_at_least(parser, arguments, 0, "seed")
    if arguments.names is not None and arguments.compare is None:
        parser.error("--names needs --compare: a single report is named after its model")
    return arguments


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parse_arguments(argv)
    from ..utils.cli import user_errors
    from ..utils.files import alone_in
    from ..voting.comparison import compare_votes, markdown_comparison, write_comparison
    from ..voting.records import load_records
    from ..voting.report import markdown_report, write_report

    with user_errors(OSError, ValueError), alone_in(Path(arguments.output)):
        records = load_records(*arguments.records, accumulate=arguments.accumulate)
        comparison = None
        if arguments.compare is not None:
            other = load_records(*arguments.compare, accumulate=arguments.accumulate)
            names = arguments.names or (arguments.records[0], arguments.compare[0])
            comparison = compare_votes(records, other, tuple(names), seed=arguments.seed)
        report, written = write_report(records, arguments.output, seed=arguments.seed)
        print(markdown_report(report))
        if comparison is not None:
            print(markdown_comparison(comparison))
            written += write_comparison(comparison, arguments.output)
    print_written(written)
    return 0
