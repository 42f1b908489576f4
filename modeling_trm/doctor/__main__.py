"""Say what this machine has, which paths a model takes on it and why, and what to do about what is missing.

examples:
  python -m modeling_trm.doctor
  python -m modeling_trm.doctor --json > machine.json

Nothing is downloaded, written or sent; a token is never shown. Exit code 0 if a model can run here, 1 otherwise.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict

from .devices import check_devices, check_paths, usable_devices
from .findings import Finding, in_words
from .hub import check_hub
from .models import check_models
from .packages import check_packages


def examine() -> list[Finding]:
    """All findings, by section."""
    packages, devices = list(check_packages()), usable_devices()
    return [
        *(one for one in packages if one.section == "versions"),
        *check_devices(),
        *(one for device in devices for one in check_paths(device)),
        *(one for device in devices for one in check_models(device)),
        *(one for one in packages if one.section == "optional"),
        *check_hub(),
    ]


def main(argv: Sequence[str] | None = None) -> int:
    summary, _, epilog = str(__doc__).partition("\n\n")
    parser = argparse.ArgumentParser(
        prog="python -m modeling_trm.doctor",
        description=summary,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", action="store_true", help="print JSON: can_run, and findings with what to do")
    arguments = parser.parse_args(argv)
    findings = examine()
    can_run = not any(finding.fatal for finding in findings)
    if arguments.json:
        print(json.dumps({"can_run": can_run, "findings": [asdict(finding) for finding in findings]}, indent=2))
    else:
        todo = sum(finding.todo is not None for finding in findings)
        verdict = "A model can run here" if can_run else "No model can run here"
        print(
            "\n".join(
                [*in_words(findings), "", f"{verdict}; {todo or 'no'} line{'s' * (todo != 1)} with something to do."]
            )
        )
    return 0 if can_run else 1


if __name__ == "__main__":
    sys.exit(main())
