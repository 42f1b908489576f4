"""What a config says of grids and latents: rows and columns, positions, symbol fields, and which sizes are answered.

Shapes: K symbols, S = prefix + cells positions, D hidden.
"""

import math

SCAN_ORDERS = ("raster", "transposed", "reversed", "transposed-reversed")
LINES = ("rows", "columns", "boxes")


class GridSizes:
    """For TRMConfig, whose fields these are."""

    vocab_size: int
    seq_len: int
    puzzle_prefix_len: int
    hidden_size: int
    block_operators: list[str]
    symbol_fields: bool
    num_special_tokens: int
    puzzle_symbol_width: int
    scan_orders: list[str]
    axial_lines: list[str]
    grid_width: int | None
    position_embedding: str

    @property
    def fixing_operators(self) -> list[str]:
        """The operators with weights for each position, as far as they are known here."""
        raise NotImplementedError

    @property
    def num_positions(self) -> int:
        """Length the stack sees: prefix + grid."""
        return self.puzzle_prefix_len + self.seq_len

    @property
    def num_symbols(self) -> int:
        """K, the symbol fields, of a model that has them."""
        return self.vocab_size - self.num_special_tokens

    @property
    def puzzle_width(self) -> int:
        """Numbers of a row of the puzzle table: D, and with symbol fields puzzle_symbol_width more for each symbol."""
        return self.hidden_size + (self.num_symbols * self.puzzle_symbol_width if self.symbol_fields else 0)

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """Of a latent of one puzzle: [S, D], with symbol fields [K, S, D]."""
        return self.latent_shape_of(self.seq_len)

    def latent_shape_of(self, cells: int) -> tuple[int, ...]:
        """As latent_shape, of a grid of so many cells. Raises ValueError as `vocab_size_of`."""
        fields = (self.vocab_size_of(cells) - self.num_special_tokens,) if self.symbol_fields else ()
        return (*fields, self.puzzle_prefix_len + cells, self.hidden_size)

    def vocab_size_of(self, cells: int) -> int:
        """Token ids of grids of so many cells: those of the config, but with symbol fields n x n cells have n symbols.

        Raises:
            ValueError: the model cannot answer grids of that size, and why.
        """
        if cells == self.seq_len:
            return self.vocab_size
        why = self.size_bound_by
        if why is None and math.isqrt(cells) ** 2 == cells:
            self._check_boxes(cells)
            return self.num_special_tokens + math.isqrt(cells) if self.symbol_fields else self.vocab_size
        raise ValueError(
            f"this model was made for {self.seq_len} cells (config.seq_len), not for {cells}: "
            f"{why or 'of other sizes it answers square grids alone'}"
        )

    def misfit(self, task: str, vocab_size: int, cells: int) -> str | None:
        """Why a task's grids of so many cells and token ids cannot be answered, naming both sides; None if they can."""
        try:
            own, why = {"vocab_size": self.vocab_size_of(cells), "seq_len": cells}, ""
        except ValueError as error:
            own, why = {"vocab_size": self.vocab_size, "seq_len": self.seq_len}, f" ({error})"
        for name, needed in (("vocab_size", vocab_size), ("seq_len", cells)):
            if own[name] != needed:
                return f"its config has {name}={own[name]}, but {task!r} puzzles need {name}={needed}{why}"
        return None

    def grid_shape(self, cells: int) -> tuple[int, int]:
        """(height, width) of a grid of so many cells. Raises ValueError where there is none."""
        own_width = self.grid_width if cells == self.seq_len else None  # of other sizes grids are square
        width = math.isqrt(cells) if own_width is None else own_width
        height = cells // width
        if height * width != cells or (own_width is None and height != width):
            raise ValueError(
                f"a grid of {cells} cells has no rows and columns with grid_width={self.grid_width}; allowed: None for "
                f"a square grid, or a number of columns that divides the cells"
            )
        return height, width

    @property
    def sees_rows_and_columns(self) -> bool:
        """Whether cells are told apart by row and column, and not by their number in one long row alone."""
        return self.position_embedding in ("rope2d", "sincos2d") or not {"conv2d", "axial"}.isdisjoint(
            self.block_operators
        )

    @property
    def size_bound_by(self) -> str | None:
        """Why the weights or the alphabet hold for grids of seq_len cells alone; None where they do not."""
        if not (self.symbol_fields or self.sees_rows_and_columns):
            return (
                "only a model with symbol_fields, 'conv2d', 'axial', 'rope2d' or 'sincos2d' answers grids of several "
                "sizes"
            )
        if self.fixing_operators:
            return f"{self.fixing_operators[0]!r} has weights for each position"
        if self.position_embedding == "learned":
            return "position_embedding='learned' has weights for each position"
        is_sudoku = self.num_symbols**2 == self.seq_len and self.grid_width in (None, self.num_symbols)
        if self.symbol_fields and not is_sudoku:
            return f"its {self.num_symbols} symbols are not as many as a square grid has columns, as in a Sudoku"
        return None

    def validate_fields(self) -> None:
        if self.num_special_tokens < 0:
            raise ValueError(f"num_special_tokens={self.num_special_tokens} is negative; allowed: 0 or more")
        if self.symbol_fields and self.num_symbols < 2:
            raise ValueError(
                f"symbol_fields=True: vocab_size={self.vocab_size} less num_special_tokens={self.num_special_tokens} "
                f"leaves {self.num_symbols} symbols; at least 2 are needed"
            )
        if self.hidden_size % self.puzzle_symbol_width:
            raise ValueError(
                f"puzzle_symbol_width={self.puzzle_symbol_width} does not divide hidden_size={self.hidden_size}"
            )
        if "symbols" in self.block_operators and not self.symbol_fields:
            raise ValueError("block_operators has 'symbols', which mixes symbol fields; set symbol_fields=True")

    def validate_grid(self) -> None:
        _check_names("scan_orders", self.scan_orders, SCAN_ORDERS)
        _check_names("axial_lines", self.axial_lines, LINES)
        if self.grid_width is not None and self.grid_width < 1:
            raise ValueError(f"grid_width={self.grid_width} must be greater than 0, or None for square grids")
        columns = any(order.startswith("transposed") for order in self.scan_orders)
        if self.sees_rows_and_columns or columns or self.grid_width is not None:
            self.grid_shape(self.seq_len)
        self._check_boxes(self.seq_len)
        if self.position_embedding == "sincos2d" and self.hidden_size % 4:
            raise ValueError(f"hidden_size={self.hidden_size}: position_embedding='sincos2d' needs a multiple of 4")

    def _check_boxes(self, cells: int) -> None:
        """Raise ValueError where "axial" is to see the boxes of a grid that has none."""
        if "axial" not in self.block_operators or "boxes" not in self.axial_lines:
            return
        height, width = self.grid_shape(cells)
        if math.isqrt(height) ** 2 != height or math.isqrt(width) ** 2 != width:
            raise ValueError(
                f"axial_lines={self.axial_lines}: a grid of {height}x{width} cells has no boxes; allowed: sides that "
                f"are squares (4, 9, 16, 25), or rows and columns alone"
            )


def _check_names(field: str, names: list[str], allowed: tuple[str, ...]) -> None:
    for i, name in enumerate(names):
        if name not in allowed:
            raise ValueError(f"{field}[{i}]={name!r} is not allowed; allowed: {', '.join(allowed)}")
    if not names:
        raise ValueError(f"{field} is empty; name at least one of {', '.join(allowed)}")
