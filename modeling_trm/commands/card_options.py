"""--update-card: the figures of an evaluation or of votes go onto the card of the checkpoint as well."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..cards.update import CardUpdate


def add_card(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("card")
    group.add_argument(
        "--update-card", action="store_true", help="put the figures into the card of the checkpoint's folder as well"
    )
    group.add_argument(
        "--card-entry",
        metavar="NAME",
        help="name of these figures on the card (default: the split); one given replaces figures of other data",
    )


def check_card(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    """Exit with a line about what cannot be meant.

    A folder where the figures would replace those of a checkpoint, or of the run that trained it, is refused.
    """
    output, model = Path(arguments.output).resolve(), Path(arguments.model)
    if arguments.update_card and not model.is_dir():
        parser.error(f"--update-card writes into a checkpoint's folder; --model {arguments.model!r} is none")
    if arguments.card_entry is not None and not arguments.update_card:
        parser.error("--card-entry is for --update-card")
    if model.is_dir() and (output in model.resolve().parents or model.resolve() in output.parents):
        where = "around" if output in model.resolve().parents else "inside of"
        parser.error(f"--output {arguments.output!r} lies {where} --model {arguments.model!r}; give another folder")


def begin_card_update(arguments: argparse.Namespace) -> "CardUpdate | None":
    from ..cards.update import CardUpdate

    if not arguments.update_card:
        return None
    entry = arguments.card_entry or arguments.split
    return CardUpdate.begin(arguments.model, entry, may_replace=arguments.card_entry is not None)
