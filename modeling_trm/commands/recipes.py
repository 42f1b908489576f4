"""List the recipes that are shipped, show one with all that it is based on, or list the fields of a recipe.

examples:
  trm recipes                            names, a line each
  trm recipes show quickstart            the recipe, complete: a file for trm train
  trm recipes fields                     every field, its default and its meaning
"""

import argparse
from collections.abc import Sequence

from .options import CommandParser


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = CommandParser("recipes", __doc__)
    what = parser.add_subparsers(dest="what", metavar="WHAT", help="list (default), show NAME, fields")
    what.add_parser("list", text="Names of the recipes that are shipped, a line each.")
    show = what.add_parser("show", text="A recipe with all that it is based on, as YAML.")
    show.add_argument("name", metavar="NAME", help="of a shipped recipe, or a file")
    what.add_parser("fields", text="Every field of a recipe, its default and its meaning.")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parse_arguments(argv)
    if arguments.what == "show":
        return show(arguments.name)
    return list_fields() if arguments.what == "fields" else list_recipes()


def list_recipes() -> int:
    from ..training.recipes import first_line, shipped_names

    names = shipped_names()
    width = max(map(len, names))
    for name in names:
        print(f"{name:{width}}  {first_line(name)}")
    return 0


def show(name: str) -> int:
    import yaml

    from ..training.recipes import first_line, read_recipe
    from ..utils.cli import user_errors

    with user_errors(ValueError, OSError):
        fields = read_recipe(name)
        print(f"# {first_line(name)}\n{yaml.safe_dump(fields, sort_keys=False, default_flow_style=None)}", end="")
    return 0


def list_fields() -> int:
    from ..training.arguments import PARTS, describe_field

    for part in PARTS:
        print(f"{str(part.__doc__).splitlines()[0]}\n")
        for line in map(describe_field, part.__dataclass_fields__.values()):
            print(f"  {line}")
        print()
    return 0
