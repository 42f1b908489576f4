"""Models of the same code base that compute something else: refused by name, with what differs.

Sources: models/recursive_reasoning/ of the public code of arXiv 2510.04871; models/eqr.py of locuslab/EqR, arXiv
2605.21488; src/nn/modules/trm_block.py of olivkoch/nano-trm.
"""

import re
from collections.abc import Collection

from .checkpoint_file import ConversionError
from .layout import TABLE

EQR = "EqR: it starts at random latents, keeps a share of them in every call of its stack and adds noise there"
CONVOLUTION = "over neighbouring cells within its channel MLP, which ours does not have"


def refuse_relatives(names: Collection[str], source: str) -> None:
    """Raise a ConversionError for one of them.

    Args:
        names: of all weights of the file.
    """
    relative = _relative(names)
    if relative is not None:
        raise refusal(relative, source)


def refusal(relative: str, source: str) -> ConversionError:
    return ConversionError(f"{source}: is a checkpoint of {relative}; allowed: trm (attention or mlp_t)")


def _relative(names: Collection[str]) -> str | None:
    has_level = {level: any(name.startswith(f"{level}_level.") for name in names) for level in "HL"}
    for module, setting in (("dwconv", "use_conv_swiglu"), ("board_conv", "use_board_swiglu")):
        if any(f".{module}." in name for name in names):
            return f"nano-trm with {setting}: a convolution ({module}) {CONVOLUTION}"
    if has_level["H"]:
        return "HRM (it has an H_level and an L_level)" if has_level["L"] else "transformers_baseline (H_level)"
    if has_level["L"] and not {"H_init", "L_init", TABLE} & set(names):
        return f"{EQR} (no H_init, no L_init); or averaged parameters alone, whose buffers another file has"
    if any(re.fullmatch(r"L\d_init", name) for name in names):
        return "trm_hier6 (six scratch latents: L1_init ...)"
    if "L_init" in names and "H_init" not in names:
        return "trm_singlez (L_init without H_init): its last update has no input injection, which ours has"
    return None
