"""The options of the search at test time, in one place for all commands; names and meanings are those of `solve`.

Nothing at module level imports PyTorch: --help and wrong arguments must not wait for that.
"""

import argparse
import math
from collections.abc import Sequence
from typing import Any

SELECTIONS = ("halt", "vote", "residual", "valid")
LATENTS = ("z_H", "z_L")
PLAIN: dict[str, Any] = {
    "num_trajectories": 1,
    "noise_std": 0.0,
    "noise_on": "z_H",
    "random_start": False,
    "selection": "halt",
    "guidance": 1.0,
    "damping": 0.0,
    "max_batch": None,
}


def add_halt_option(parser: argparse.ArgumentParser) -> None:
    """False, True or a probability."""
    parser.add_argument(
        "--halt",
        nargs="?",
        type=probability,
        const=True,
        default=False,
        metavar="P",
        help="stop each puzzle when its halt probability is above P (default: 0.5): fast, fewer curves",
    )


def probability(text: str) -> float:
    value = float(text)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return value


def add_noise_options(parser: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    """What makes the trajectories of a puzzle differ."""
    parser.add_argument(
        "--noise-std", type=float, default=PLAIN["noise_std"], metavar="X", help="added before each step (default: 0)"
    )
    parser.add_argument(
        "--noise-on", default=PLAIN["noise_on"], choices=LATENTS, help="which latent (default: %(default)s)"
    )
    parser.add_argument("--random-start", action="store_true", help="begin with random latents")


def add_search_options(parser: argparse.ArgumentParser) -> None:
    """All of them, as a group of their own. The seed of the noise is the script's --seed."""
    group = parser.add_argument_group("search at test time", "several noisy trajectories a puzzle, one of them taken")
    group.add_argument(
        "--num-trajectories", type=int, default=PLAIN["num_trajectories"], metavar="K", help="(default: %(default)s)"
    )
    add_noise_options(group)
    group.add_argument(
        "--selection",
        default=PLAIN["selection"],
        choices=SELECTIONS,
        help="which trajectory is taken: by the halt logit, by votes, by the fixed-point residual, or (valid) by the "
        "rules of the puzzle, a verifier that knows what the model does not (default: %(default)s)",
    )
    group.add_argument(
        "--guidance", type=float, default=PLAIN["guidance"], metavar="W", help="extrapolates each step's logits (1: no)"
    )
    group.add_argument(
        "--damping",
        type=float,
        default=PLAIN["damping"],
        metavar="D",
        help="share of the latents kept in a step (0: none)",
    )
    group.add_argument("--max-batch", type=int, metavar="N", help="trajectories at a time (default: all of a batch)")


def check_noise(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    """Exit with a line about what cannot be meant."""
    if not 0 <= arguments.noise_std < math.inf:
        parser.error(f"--noise-std must be 0 or more, got {arguments.noise_std}")
    if arguments.noise_on != PLAIN["noise_on"] and not arguments.noise_std:
        parser.error(f"--noise-on {arguments.noise_on} is for --noise-std above 0")


def check_search(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    """Exit with a line about what cannot be meant."""
    check_noise(parser, arguments)
    K = arguments.num_trajectories
    if K < 1:
        parser.error(f"--num-trajectories must be at least 1, got {K}")
    if K > 1 and not arguments.random_start and not arguments.noise_std:
        parser.error("all trajectories would be the same one: give --noise-std above 0, --random-start or both")
    for name in ("selection", "max_batch"):
        if K == 1 and vars(arguments)[name] != PLAIN[name]:
            parser.error(f"--{name.replace('_', '-')} is for several trajectories: --num-trajectories above 1")
    if arguments.max_batch is not None and arguments.max_batch < 1:
        parser.error(f"--max-batch must be at least 1, got {arguments.max_batch}")
    if not math.isfinite(arguments.guidance):
        parser.error(f"--guidance must be a finite number, got {arguments.guidance}")
    if not 0 <= arguments.damping < 1:
        parser.error(f"--damping must be from 0 up to, not including, 1, got {arguments.damping}")


def describe_search(arguments: argparse.Namespace) -> dict[str, Any]:
    """What was asked for, JSON-ready; empty where nothing was, that is, for plain solving."""
    chosen = {name: vars(arguments)[name] for name in PLAIN}
    return {} if chosen == PLAIN else {**chosen, "seed": arguments.seed}


def search_options(arguments: argparse.Namespace, task: str, grid_shape: Sequence[int]) -> dict[str, Any]:
    """The same as arguments of `solve`, with verifier and generator; empty for plain solving.

    Raises:
        ValueError: the rules shall choose, and the task has no known ones.
    """
    import torch

    from ..verifiers_trm import verifier_for

    options = describe_search(arguments)
    if not options:
        return {}
    options["generator"] = torch.Generator().manual_seed(options.pop("seed"))
    if options["selection"] == "valid":
        options["verifier"] = verifier_for(task, grid_shape)
    return options
