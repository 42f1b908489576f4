"""All that the doctor looks at, in order, and its report."""

import json
from collections.abc import Sequence
from dataclasses import asdict

from .checkpoints import check_checkpoints
from .devices import check_devices, check_paths, usable_devices
from .findings import Finding, in_words
from .hub import check_hub
from .models import check_models
from .packages import check_packages


def examine(checkpoints: Sequence[str] = ()) -> list[Finding]:
    """All findings, by section."""
    packages, devices = list(check_packages()), usable_devices()
    return [
        *(one for one in packages if one.section == "versions"),
        *check_devices(),
        *(one for device in devices for one in check_paths(device)),
        *(one for device in devices for one in check_models(device)),
        *(one for one in packages if one.section == "optional"),
        *check_hub(),
        *check_checkpoints(checkpoints),
    ]


def report(as_json: bool, checkpoints: Sequence[str] = ()) -> int:
    """Print the findings; 0 if a model can run here, these checkpoints included, else 1."""
    findings = examine(checkpoints)
    can_run = not any(finding.fatal for finding in findings)
    if as_json:
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
