"""The options of how puzzles are solved, in one place for all commands: the fields of ReasoningConfig by their names.

Nothing at module level imports PyTorch: --help and wrong arguments must not wait for that.
"""

import argparse
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from ..reasoning_config_trm import LATENTS, RULES, SELECTIONS, ReasoningConfig

NOISE = ("noise_std", "noise_on", "random_start")
FIELDS = {field.name: field.default for field in fields(ReasoningConfig)}


def add_halt_option(parser: argparse.ArgumentParser, default: bool | None = False) -> None:
    """False, True or a probability; None, which asks for nothing, where the default is the checkpoint's own."""
    told = "the checkpoint's own" if default is None else "every step is taken"
    group = parser.add_mutually_exclusive_group()
    group.add_argument(
        "--halt",
        nargs="?",
        type=probability,
        const=True,
        default=default,
        metavar="P",
        help=f"stop each puzzle when its halt probability is above P (without P: 0.5; default: {told})",
    )
    group.add_argument("--no-halt", dest="halt", action="store_false", help="take every step")


def add_certificate_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--certificate",
        type=certificate,
        metavar="rules|P",
        help="give an answer only where it obeys the rules of the puzzle, or where its halt probability is above P, "
        'else "not sure"; views and trajectories are attempts in turn (default: every answer is given)',
    )


def certificate(text: str) -> str | float:
    return text if text == RULES else probability(text)


def probability(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no number between 0 and 1") from None
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return value


def add_noise_options(parser: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    """What makes the trajectories of a puzzle differ."""
    parser.add_argument("--noise-std", type=float, metavar="X", help="added before each step (default: 0)")
    parser.add_argument("--noise-on", choices=LATENTS, help="which latent (default: z_H)")
    parser.add_argument("--random-start", action="store_true", default=None, help="begin with random latents")


def add_search_options(parser: argparse.ArgumentParser) -> None:
    """All of them, as a group of their own. The seed of the noise is the command's --seed."""
    group = parser.add_argument_group("search at test time", "several noisy trajectories a puzzle, one of them taken")
    group.add_argument("--num-trajectories", type=int, metavar="K", help="(default: 1)")
    add_noise_options(group)
    group.add_argument(
        "--selection",
        choices=SELECTIONS,
        help="which trajectory is taken: by the halt logit, by votes, by the fixed-point residual, or (valid) by the "
        "rules of the puzzle, a verifier that knows what the model does not (default: halt)",
    )
    group.add_argument("--guidance", type=float, metavar="W", help="extrapolates each step's logits (1: no)")
    group.add_argument("--damping", type=float, metavar="D", help="share of the latents kept in a step (0: none)")
    group.add_argument("--max-batch", type=int, metavar="N", help="trajectories at a time (default: all of a batch)")


def reasoning_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """The fields of ReasoningConfig that were given."""
    return {name: value for name, value in vars(arguments).items() if name in FIELDS and value is not None}


def check_reasoning(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> ReasoningConfig:
    """What was given, in the place of the class's defaults. Exit with a line about what cannot be meant."""
    options = reasoning_options(arguments)
    config = _made(parser, options)
    check_noise(parser, arguments)
    for name in ("selection", "max_batch"):
        if name in options and config.num_trajectories == 1:
            parser.error(f"--{name.replace('_', '-')} is for several trajectories: --num-trajectories above 1")
    return config


def check_noise(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> dict[str, Any]:
    """The options of noise that were given. Exit with a line about what cannot be meant."""
    noise = {name: value for name, value in reasoning_options(arguments).items() if name in NOISE}
    config = _made(parser, noise)
    if "noise_on" in noise and not config.noise_std:
        parser.error(f"--noise-on {noise['noise_on']} is for --noise-std above 0")
    return noise


def _made(parser: argparse.ArgumentParser, options: dict[str, Any]) -> ReasoningConfig:
    try:
        return ReasoningConfig(**options)
    except ValueError as error:  # it begins with the field and its value
        name, _, rest = str(error).partition("=")
        parser.error(f"--{name.replace('_', '-')} {rest}")


def run_time(config: ReasoningConfig, seed: int, task: str, grid_shape: Sequence[int]) -> dict[str, Any]:
    """What `solve` takes beside the configuration: generator and verifier.

    Raises:
        ValueError: the rules shall choose, and the task has no known ones.
    """
    import torch

    from ..verifiers_trm import verifier_for

    return {
        "generator": torch.Generator().manual_seed(seed),
        "verifier": verifier_for(task, grid_shape) if config.selection == "valid" else None,
    }
