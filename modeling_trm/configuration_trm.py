"""TRMConfig: every architectural number of the model family, its meaning, its validation, and the named presets.

Sources: Tiny Recursive Model, arXiv 2510.04871 (sections 2 to 4 and the public code's config/arch); Mamba-2 hybrids,
arXiv 2602.12078.

Glossary (paper's symbol = our name = the reference code's name):
  y = z_H (answer latent) = z_H          z = z_L (scratch latent) = z_L
  T = H_cycles = H_cycles                n = L_cycles = L_cycles
  N_sup = halt_max_steps = halt_max_steps
"""

import copy
import dataclasses
import math
from typing import Any, Literal

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig

from .config_file_trm import ConfigFile
from .grid_sizes_trm import GridSizes
from .registry_trm import OPERATORS, check_operators_known, check_options, near_miss

DTYPES = ("float32", "float64", "float16", "bfloat16")

AttentionBackend = Literal["auto", "cudnn", "flash", "efficient", "math"]
MlpTBackend = Literal["auto", "torch"]
SsdBackend = Literal["auto", "torch", "cuda", "triton"]
# Fields that say how a model runs, not what it is, with the kernels that run anywhere.
KERNELS = {"attention_backend": "auto", "mlp_t_backend": "torch", "ssd_backend": "torch"}

IMPROVEMENT: dict[str, Any] = {
    "H_cycles": 1,
    "L_cycles": 2,
    "halt_max_steps": 6,
    "num_step_embeddings": 6,
    "answer_feedback": True,
}
SYMBOLS: dict[str, Any] = {"symbol_fields": True, "hidden_size": 128, "num_attention_heads": 4, "puzzle_prefix_len": 0}
PRESETS: dict[str, dict[str, Any]] = {
    "trm-attn": {"block_operators": ["attention", "mlp", "attention", "mlp"]},
    "trm-mlp-t": {"block_operators": ["mlp_t", "mlp", "mlp_t", "mlp"]},
    "tr-mamba2attn": {"block_operators": ["mamba2", "mamba2", "attention", "mlp"]},
    # Whether a channel MLP follows the MLP-t is not stated in arXiv 2602.12078; with it every preset ends in one.
    "tr-mamba2mlpt": {"block_operators": ["mamba2", "mamba2", "mlp_t", "mlp"]},
    "mamba2": {"block_operators": ["mamba2", "mlp", "mamba2", "mlp"]},
    # What came after the paper, in Mamba-2's place: Mamba-3, arXiv 2603.15569; gated DeltaNet, arXiv 2412.06464.
    "tr-mamba3attn": {"block_operators": ["mamba3", "mamba3", "attention", "mlp"]},
    "tr-mamba3mlpt": {"block_operators": ["mamba3", "mamba3", "mlp_t", "mlp"]},
    "tr-deltaattn": {"block_operators": ["delta", "delta", "attention", "mlp"]},
    "tr-deltamlpt": {"block_operators": ["delta", "delta", "mlp_t", "mlp"]},
    # The universal reasoning model, arXiv 2512.14693; cycles of its public scripts.
    "urm": {"block_operators": 4 * ["attention", "conv_mlp"], "num_latents": 1, "H_cycles": 2, "L_cycles": 6},
    # One latent vector for each symbol and cell, arXiv 2603.02193; widths of the digit-field models.
    "symbols-attn": {
        "block_operators": ["attention", "symbols", "mlp", "attention", "symbols", "mlp"],
        "position_embedding": "rope2d",
        **SYMBOLS,
    },
    "symbols-mamba2": {
        "block_operators": ["mamba2", "symbols", "mlp", "mamba2", "symbols", "mlp"],
        "scan_orders": ["raster", "transposed-reversed"],
        "position_embedding": "none",
        "mamba_d_state": 32,
        "mamba_head_dim": 32,
        **SYMBOLS,
    },
    # Deep improvement supervision, arXiv 2511.16886: 6 steps x 3 stacks = 18 forward passes a puzzle instead of 336.
    "compact": {"block_operators": ["attention", "mlp"], "hidden_size": 256, **IMPROVEMENT},
    "medium": {"block_operators": ["attention", "mlp", "attention", "mlp"], **IMPROVEMENT},
}


@strict
class TRMConfig(GridSizes, ConfigFile, PreTrainedConfig):
    """Architecture of a tiny recursive model. Batch sizes, learning rates and data sets live in the training recipes.

    The three fields named ..._backend (KERNELS) say how the model runs, not what it is: they are not saved, and
    `model.set_kernels` changes them at any time.

    Args:
        vocab_size: number of token ids, pad (0) included.
        seq_len: number of cells of a grid (81 for Sudoku, 900 for a 30x30 canvas), without the prefix.
        num_puzzles: rows of the puzzle table; row 0 is the blank puzzle id.
        puzzle_prefix_len: positions in front of the grid, the first of them filled from the puzzle table
            (0: no prefix and no table; the first position is then the first cell).
        puzzle_conditioning: where a puzzle's row is read: in the "prefix" (reference), from where operators carry it to
            the cells, or there and at the "cells", to each of which it is added.
        hidden_size: channels D of both latents.
        block_operators: names of the sublayers of the stack, in order; see `operators_trm.OPERATORS`.
        operator_options: {operator of your own: {option: value}}, what its class takes besides the config, as in
            {"gated_conv": {"kernel": 5}}. The package's operators take none: fields of the config say what they are.
        H_cycles: cycles of a supervision step; only the last one carries gradient.
        L_cycles: updates of the scratch latent a cycle.
        num_latents: 2 = answer and scratch latent as published; 1 = a single latent, z = stack(z + x), L_cycles times.
        halt_max_steps: supervision steps after which a puzzle is always stopped.
        num_step_embeddings: learned embeddings of the number of the supervision step, added to every position of the
            input (arXiv 2511.16886); steps beyond take the last. 0: the model does not know the step (reference).
        answer_feedback: each step after the first reads the answer of the step before instead of the puzzle (arXiv
            2511.16886); with a `blank_token_id` the given cells stay.
        symbol_fields: one latent vector for each symbol and cell, [B, K, S, D], all parameters shared by the K symbols:
            relabelling the symbols of a puzzle relabels the answer, exactly (arXiv 2603.02193). Every operator works
            within each field by itself, but "symbols", which mixes the fields at each cell.
        num_special_tokens: with symbol_fields, ids below it (padding and blank; padding and end of grid) are special:
            they look alike in every field. The others are the symbols, K = vocab_size - num_special_tokens.
        puzzle_symbol_width: with symbol_fields, numbers of a puzzle's row for each symbol, behind the vector that all
            fields share; each is added to hidden_size / puzzle_symbol_width channels. 1 (arXiv 2603.02193) names the
            symbols of a task; as many as hidden_size let its rule treat each symbol in a way of its own.
        symbol_mixing: how "symbols" mixes: "attention" over the other fields, or W times their "mean".
        scan_orders: in which order an operator that reads cell after cell (mamba2) takes them: "raster" (row by row),
            "transposed" (column by column), "reversed", or "transposed-reversed". The first such operator of the stack
            takes the first, the next the next, and so around. The prefix stays in front.
        grid_width: columns of a grid, for what knows rows and columns (conv2d, axial, rope2d, sincos2d, transposed
            scans); None: it is square.
        num_attention_heads: heads of the operators attention and symbols; divides hidden_size into even head sizes.
        attention_backend: what scaled_dot_product_attention runs: "auto" leaves the choice to PyTorch, but for two
            plain products in bfloat16 on a CPU; "cudnn" (CUDA, 16-bit types; on Hopper at 916 positions), "flash" (on
            CUDA 16-bit types), "efficient" (CUDA) and "math" force one, or raise where it cannot run. The packed
            engines for CPUs are always "auto".
        rope_theta: base wavelength of the rotary embedding; of "sincos2d" how many boxes the longest wave has.
        position_embedding: "rope" (inside attention, by the position's number), "rope2d" (there, half of a head by the
            row and half by the column), "learned" (added to the input), "sincos2d" (added, waves of row and column
            that suit every size) or "none".
        position_std: standard deviation of added positions (if learned, at first) over that of tokens (reference: 1).
        head_init: "lecun" (reference), or "embedding": the answer head starts as the token embedding, so that a token
            in and the same token out are one direction; trained freely afterwards. Small models learn far sooner so.
        mlp_expansion: inner width of both MLPs is expansion * width * 2/3, rounded up to `mlp_multiple_of`.
        mlp_multiple_of: see mlp_expansion.
        mlp_gate: "silu" = SwiGLU; "normalized" = sigmoid(g) * rms_norm(g * v), arXiv 2601.19085.
        mlp_gate_bias: None = no bias (reference); a number = a learned bias on the gate that starts there.
        mlp_t_norm: the post-norm of MLP-t runs over "positions" (reference) or "channels".
        mlp_t_backend: "auto" multiplies by the weights from the left on CUDA tensors, nothing transposed and rows
            padded to a multiple of 8; elsewhere, and with "torch" everywhere, a linear layer on the transposed tensor.
        mlp_conv_kernel: positions that the convolution inside "conv_mlp" sees (arXiv 2512.14693: 2, a cell and the one
            before it; of 3 the one after it too).
        conv2d_kernel: rows and columns that "conv2d" sees around a cell, its own included; an odd number.
        axial_lines: along which lines "axial" attends, side by side: "rows", "columns", "boxes" (of a Sudoku).
        axial_heads: its attention heads along each kind of line.
        axial_head_dim: channels of each of them.
        mamba_d_state: state size N of Mamba-2 and Mamba-3.
        mamba_d_conv: width of Mamba-2's depthwise causal convolution; Mamba-3 has none.
        mamba_expand: inner width of Mamba-2 and Mamba-3 over hidden_size.
        mamba_head_dim: head size P; divides the inner width.
        mamba_n_groups: groups that share B and C; divides the number of heads.
        mamba_rope_fraction: share of Mamba-3's state that is rotated (mamba_ssm: 0.5 or 1).
        ssd_backend: of Mamba-2 alone. "auto" picks per call (mamba_ssm's kernels on CUDA tensors if they import, else
            PyTorch); "torch" and "cuda" force one of them; "triton" is our own kernel for CUDA tensors, with a
            deterministic backward pass. It needs the package triton; "auto" never picks it, though it makes a hybrid's
            training step 1.1 to 1.3 times faster on an H200, the one GPU it was timed on.
        delta_heads: heads H of gated DeltaNet (arXiv 2412.06464). With fla's advice, 0.75 hidden_size channels of
            keys and twice as many of values, a sublayer has 6 hidden_size^2 parameters; the defaults are for 512.
        delta_key_dim: channels of a head's queries and keys.
        delta_value_dim: channels of a head's values.
        delta_d_conv: width of its depthwise causal convolutions.
        rms_norm_eps: epsilon of every RMSNorm.
        initial_state_std: standard deviation of the fixed initial latents.
        halt_bias: initial bias of the halting head.
        halt_pooling: what that head reads: the "first" position (reference), or the "mean" of the cells, as with
            symbol_fields it always does; for stacks that carry a fault to the first cell slowly, or not at all.
        blank_token_id: None = answers are the arg max everywhere (reference); a token id = `solve` keeps every cell
            whose input is another token, so that only blanks are answered (for models trained on blanks alone).

    Raises:
        TypeError: an unknown key, with the nearest known one (of a config.json it is dropped with a warning).
        StrictDataclassError: a value of the wrong type, or one that does not fit the others, naming both.
    """

    model_type = "trm"
    # Where a checkpoint's own code runs. The package has none: it registers its pipeline.
    keys_to_ignore_at_inference = ["state"]  # transformers' Trainer gathers what a model returns, the latents apart
    pipelines_of_remote_code = {"grid-reasoning": {"impl": "pipeline_trm.GridReasoningPipeline", "pt": ["AutoModel"]}}

    vocab_size: int = 12
    seq_len: int = 81
    num_puzzles: int = 1
    puzzle_prefix_len: int = 16
    puzzle_conditioning: Literal["prefix", "cells"] = "prefix"
    hidden_size: int = 512
    block_operators: list[str] = dataclasses.field(default_factory=lambda: list(PRESETS["trm-attn"]["block_operators"]))
    operator_options: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
    H_cycles: int = 3
    L_cycles: int = 6
    num_latents: Literal[1, 2] = 2
    halt_max_steps: int = 16
    num_step_embeddings: int = 0
    answer_feedback: bool = False
    symbol_fields: bool = False
    num_special_tokens: int = 2
    puzzle_symbol_width: int = 1
    symbol_mixing: Literal["attention", "mean"] = "attention"
    scan_orders: list[str] = dataclasses.field(default_factory=lambda: ["raster"])
    grid_width: int | None = None
    num_attention_heads: int = 8
    attention_backend: AttentionBackend = "auto"
    rope_theta: int | float = 10000.0
    position_embedding: Literal["rope", "rope2d", "sincos2d", "learned", "none"] = "rope"
    position_std: int | float = 1.0
    head_init: Literal["lecun", "embedding"] = "lecun"
    mlp_expansion: int | float = 4.0
    mlp_multiple_of: int = 256
    mlp_gate: Literal["silu", "normalized"] = "silu"
    mlp_gate_bias: int | float | None = None
    mlp_t_norm: Literal["positions", "channels"] = "positions"
    mlp_t_backend: MlpTBackend = "auto"
    mlp_conv_kernel: int = 2
    conv2d_kernel: int = 3
    axial_lines: list[str] = dataclasses.field(default_factory=lambda: ["rows", "columns"])
    axial_heads: int = 4
    axial_head_dim: int = 32
    mamba_d_state: int = 128
    mamba_d_conv: int = 4
    mamba_expand: int = 2
    mamba_head_dim: int = 64
    mamba_n_groups: int = 1
    mamba_rope_fraction: int | float = 0.5
    ssd_backend: SsdBackend = "auto"
    delta_heads: int = 6
    delta_key_dim: int = 64
    delta_value_dim: int = 128
    delta_d_conv: int = 4
    rms_norm_eps: float = 1e-5
    initial_state_std: int | float = 1.0
    halt_bias: int | float = -5.0
    halt_pooling: Literal["first", "mean"] = "first"
    blank_token_id: int | None = None

    @classmethod
    def from_preset(cls, name: str, **overrides: Any) -> "TRMConfig":
        """The named preset of PRESETS with any field overridden. Raises ValueError for an unknown name."""
        if name not in PRESETS:
            raise ValueError(f"unknown preset {name!r}{near_miss(name, PRESETS)}; allowed: {', '.join(PRESETS)}")
        return cls(**copy.deepcopy(PRESETS[name]) | overrides)

    @property
    def custom_pipelines(self) -> dict[str, Any]:
        """What transformers asks for the pipelines of a checkpoint's code; a copy, because it writes into it."""
        return copy.deepcopy(self.pipelines_of_remote_code)

    @custom_pipelines.setter
    def custom_pipelines(self, pipelines: dict[str, Any]) -> None:
        """Set by a pipeline's save_pretrained and by a config.json; the code knows its pipelines without it."""

    def inner_width(self, width: int) -> int:
        """Inner width of a SwiGLU over `width` channels or positions (reference: models/layers.py, SwiGLU).

        Raises:
            ValueError: there would be none, or no number that says it.
        """
        exact = self.mlp_expansion * width * 2 / 3
        if not 0.5 < exact < math.inf:
            raise ValueError(
                f"mlp_expansion={self.mlp_expansion} of width {width} gives an MLP of inner width {exact:.0f}; "
                f"allowed: more than {0.75 / width:.3g}"
            )
        return -(-round(exact) // self.mlp_multiple_of) * self.mlp_multiple_of

    @property
    def mamba_d_inner(self) -> int:
        return self.mamba_expand * self.hidden_size

    @property
    def mamba_n_heads(self) -> int:
        return self.mamba_d_inner // self.mamba_head_dim

    @property
    def mamba_d_in_proj(self) -> int:
        """Outputs of Mamba-2's in_proj: gate z, then x, B, C, then dt."""
        return 2 * self.mamba_d_inner + 2 * self.mamba_n_groups * self.mamba_d_state + self.mamba_n_heads

    @property
    def mamba_n_angles(self) -> int:
        """Pairs of Mamba-3's state that are rotated."""
        return int(self.mamba_d_state * self.mamba_rope_fraction) // 2

    @property
    def mamba_fits_cuda_kernels(self) -> bool:
        """causal-conv1d takes widths 2 to 4, and rows whose stride is a multiple of 8 elements."""
        return self.mamba_d_in_proj % 8 == 0 and 2 <= self.mamba_d_conv <= 4

    def __post_init__(self, **kwargs: Any) -> None:
        for key, hint in self.unknown_keys(kwargs).items():
            raise TypeError(f"TRMConfig has no field {key!r}{hint}")
        for name in ("dtype", "torch_dtype"):  # transformers looks a name up in torch without checking it
            value = kwargs.get(name) or vars(self).get(name)
            if isinstance(value, str) and value.removeprefix("torch.") not in DTYPES:
                raise ValueError(f"{name}={value!r} is not allowed; allowed: {', '.join(DTYPES)}")
        super().__post_init__(**kwargs)

    def to_dict(self) -> dict[str, Any]:
        """As transformers', and so config.json, without the choice of kernels; a config.json that holds it is read."""
        return {name: value for name, value in super().to_dict().items() if name not in KERNELS}

    def validate_architecture(self) -> None:
        """Cross-field checks; run at construction and again by the model (overrides at load time skip construction)."""
        self._require_positive(
            "vocab_size seq_len num_puzzles puzzle_symbol_width hidden_size H_cycles L_cycles halt_max_steps "
            "num_attention_heads mlp_multiple_of mlp_conv_kernel conv2d_kernel axial_heads axial_head_dim "
            "mamba_d_state mamba_d_conv mamba_expand mamba_head_dim mamba_n_groups delta_heads delta_key_dim "
            "delta_value_dim delta_d_conv rope_theta mlp_expansion rms_norm_eps"
        )
        if self.conv2d_kernel % 2 == 0:
            raise ValueError(f"conv2d_kernel={self.conv2d_kernel} has no middle; allowed: 1, 3, 5, ...")
        for name, value in vars(self).items():
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError(f"{name}={value} is not allowed; allowed: finite numbers")
        for name in ("puzzle_prefix_len", "num_step_embeddings"):
            if self.__dict__[name] < 0:
                raise ValueError(f"{name}={self.__dict__[name]} is negative; allowed: 0 or more")
        if self.puzzle_prefix_len == 0 and self.num_puzzles > 1:
            raise ValueError(f"num_puzzles={self.num_puzzles} needs a prefix to be read from; puzzle_prefix_len is 0")
        if self.puzzle_prefix_len == 0 and self.puzzle_conditioning == "cells":
            raise ValueError("puzzle_conditioning='cells' needs a puzzle table; puzzle_prefix_len=0 leaves it out")
        for name in ("initial_state_std", "position_std"):
            if self.__dict__[name] < 0:
                raise ValueError(f"{name}={self.__dict__[name]} is negative; allowed: 0 or more")
        if self.blank_token_id is not None and not 0 <= self.blank_token_id < self.vocab_size:
            raise ValueError(
                f"blank_token_id={self.blank_token_id} is not a token id; allowed: 0..{self.vocab_size - 1}"
            )
        check_operators_known(self.block_operators)
        check_options(self.block_operators, self.operator_options)
        self.validate_fields()
        self.validate_grid()
        for name in ("attention", "symbols"):
            if name in self.block_operators:
                self._validate_heads(name)
        for name, width in (("mlp", self.hidden_size), ("conv_mlp", self.hidden_size), ("mlp_t", self.num_positions)):
            if name in self.block_operators:
                self.inner_width(width)
        if "mamba2" in self.block_operators or "mamba3" in self.block_operators:
            self._validate_mamba()
        if self.mamba_rope_fraction not in (0.5, 1) or ("mamba3" in self.block_operators and self.mamba_n_angles == 0):
            raise ValueError(
                f"mamba_rope_fraction={self.mamba_rope_fraction} of mamba_d_state={self.mamba_d_state} is not allowed; "
                f"allowed: 0.5 and 1, of a state with a pair to rotate"
            )
        if "mamba2" in self.block_operators:
            self._validate_ssd_backend()

    @property
    def fixing_operators(self) -> list[str]:
        """Those with weights for each position, as far as they are known here."""
        return [name for name in self.block_operators if getattr(OPERATORS.get(name), "fixes_length", False)]

    def _require_positive(self, names: str) -> None:
        for name in names.split():
            value = self.__dict__[name]
            if not value > 0:
                raise ValueError(f"{name}={value} must be greater than 0")

    def _validate_heads(self, operator: str) -> None:
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size={self.hidden_size} is not divisible by num_attention_heads={self.num_attention_heads}"
            )
        head_dim = self.hidden_size // self.num_attention_heads
        multiple, needed = {"rope": (2, "an even head size"), "rope2d": (4, "a head size that 4 divides")}.get(
            self.position_embedding, (1, "")
        )
        if operator == "attention" and head_dim % multiple:
            raise ValueError(
                f"hidden_size={self.hidden_size} / num_attention_heads={self.num_attention_heads} gives heads of "
                f"{head_dim}; position_embedding={self.position_embedding!r} needs {needed}"
            )

    def _validate_mamba(self) -> None:
        if self.mamba_d_inner % self.mamba_head_dim:
            raise ValueError(
                f"mamba_expand * hidden_size = {self.mamba_d_inner} is not divisible by "
                f"mamba_head_dim={self.mamba_head_dim}"
            )
        if self.mamba_n_heads % self.mamba_n_groups:
            raise ValueError(
                f"mamba_n_groups={self.mamba_n_groups} does not divide the {self.mamba_n_heads} heads "
                f"(mamba_expand * hidden_size / mamba_head_dim)"
            )
        if self.mamba_d_inner % self.mamba_n_groups:
            raise ValueError(
                f"mamba_n_groups={self.mamba_n_groups} does not divide the inner width {self.mamba_d_inner}"
            )

    def _validate_ssd_backend(self) -> None:
        if self.ssd_backend == "cuda" and not self.mamba_fits_cuda_kernels:
            raise ValueError(
                f"ssd_backend='cuda' needs mamba_d_conv={self.mamba_d_conv} in 2..4 and 2*d_inner + "
                f"2*n_groups*d_state + n_heads = {self.mamba_d_in_proj} to be a multiple of 8; change "
                f"mamba_head_dim={self.mamba_head_dim} or mamba_d_state={self.mamba_d_state}, or use 'torch'"
            )
