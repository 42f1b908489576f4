"""Turn a checkpoint of the public TinyRecursiveModels code, or of nano-trm, into a checkpoint folder of ours, or back.

examples:
  trm convert checkpoints/run/step_50000 --output converted      all_config.yaml lies beside it
  trm convert step_50000 --arch all_config.yaml --output converted
  trm convert weights.pt --H-cycles 3 --L-cycles 6 --num-heads 8 --output converted
  trm convert step_155718 --identifiers identifiers.json --subset evaluation --output converted
  trm convert both.pt --entry ema --output converted             a file with several state dicts
  trm convert last.ckpt --entry callbacks.EMACallback.shadow --output converted      nano-trm, a Lightning file
  trm convert step_50000 --license mit --output converted        as its author published it
  trm convert converted --to-reference --output back/step_0      and all_config.yaml beside it

What the tensors tell is inferred, and checked against what is given; they do not tell H_cycles, L_cycles and, for
attention, num_heads; nor, for attention without a puzzle table, --puzzle-emb-len: 0 where it was trained without one,
16 where the table was stripped from the file (a blank row of zeros takes its place). A puzzle table whose rows are
wider than hidden_size is refused. Nothing in the file is run: a pickle that asks for code is refused; paths, settings
and states of generators beside the weights are passed over.

Converted weights are somebody else's, and so is their licence: --license puts the one that they were published under
on the card; without it the card names none.

Writes config, weights, puzzle table, processor, code and model card with all facts of the conversion into OUTPUT, which
must be new or empty, whole or not at all. Exit code 0 when it was written, 2 when the checkpoint was refused.
"""

import argparse
from collections.abc import Sequence

from .options import TASKS, CommandParser, given, print_written

INTEGERS = ("H_cycles", "L_cycles", "num_heads", "puzzle_emb_len", "halt_max_steps")
NUMBERS = ("rms_norm_eps", "rope_theta", "expansion")


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = CommandParser("convert", __doc__)
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="file of torch.save or safetensors; a folder of ours")
    parser.add_argument("--output", required=True, metavar="DIR", help="folder; with --to-reference the file to write")
    parser.add_argument("--to-reference", action="store_true", help="a folder of ours into the reference's layout")
    parser.add_argument("--entry", metavar="NAME", help="which state dict of a file that holds several")
    parser.add_argument("--arch", metavar="YAML", help="all_config.yaml of the run, or its arch section alone")
    for name in INTEGERS:
        parser.add_argument(f"--{name.replace('_', '-')}", dest=name, type=int, metavar="N", help="as in the arch YAML")
    for name in NUMBERS:
        parser.add_argument(f"--{name.replace('_', '-')}", dest=name, type=float, metavar="X", help="likewise")
    parser.add_argument("--pos-encodings", choices=("rope", "learned", "none"), help="likewise")
    parser.add_argument("--task", choices=TASKS, help="(default: what the number of token ids tells)")
    parser.add_argument("--grid-shape", type=int, nargs=2, metavar=("H", "W"), help="(default: the task's own)")
    parser.add_argument("--alphabet", help="grid: the characters of token ids 1, 2, ...")
    parser.add_argument("--identifiers", metavar="JSON", help="identifiers.json of the data set: the table's tasks")
    parser.add_argument(
        "--subset", metavar="NAME", help="put NAME/ in front of all tasks, as arc's evaluation names them"
    )
    parser.add_argument("--license", metavar="ID", help="licence of these weights by its Hub id, such as mit")
    arguments = parser.parse_args(argv)
    named = [name for name, value in vars(arguments).items() if value is not None and value is not False]
    extra = [name for name in named if name not in ("checkpoint", "output", "to_reference")]
    if arguments.to_reference and extra:
        parser.error(f"--to-reference takes --output alone, not --{extra[0].replace('_', '-')}")
    if arguments.subset is not None and arguments.identifiers is None:
        parser.error("--subset needs --identifiers")
    return arguments


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parse_arguments(argv)
    from ..conversion.from_reference import convert_reference
    from ..conversion.to_reference import export_reference
    from ..utils.cli import command_line, user_errors

    if arguments.to_reference:
        with user_errors(OSError, ValueError):
            written = export_reference(arguments.checkpoint, arguments.output)
        print_written(written)
        return 0
    fields = (*INTEGERS, *NUMBERS, "pos_encodings")
    options = {name: vars(arguments)[name] for name in fields if vars(arguments)[name] is not None}
    with user_errors(OSError, ValueError):
        facts = convert_reference(
            arguments.checkpoint,
            arguments.output,
            arch=arguments.arch,
            options=options,
            entry=arguments.entry,
            task=arguments.task,
            grid_shape=arguments.grid_shape,
            alphabet=arguments.alphabet,
            identifiers=arguments.identifiers,
            subset=arguments.subset,
            license=arguments.license,
            command=command_line("convert", given(argv)),
        )
    print("\n".join([*(f"{name}: {text}" for name, text in facts.items()), f"written: {arguments.output}"]))
    return 0
