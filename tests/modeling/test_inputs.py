"""What forward and solve take: ids of any whole type, of as many puzzles as the others; on "meta" too."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from modeling_trm import TRMForGridReasoning
from tests.conftest import ONE_OF_A_KIND

Make = Callable[..., TRMForGridReasoning]


def ways(model: TRMForGridReasoning) -> dict[str, Callable[..., Any]]:
    return {"forward": model, "latents": model.model, "solve": model.solve}


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32, torch.uint16])
@pytest.mark.parametrize("preset", ["trm-attn", "compact", "symbols-attn"])
def test_ids_of_every_whole_type(preset: str, dtype: torch.dtype, tiny_model: Make) -> None:
    model = tiny_model(preset, blank_token_id=1).eval()
    ids = torch.randint(6, (2, 16))
    given = ids.to(dtype)
    assert torch.equal(model(given, labels=given).loss, model(ids, labels=ids).loss)
    assert torch.equal(model.solve(given).answers, model.solve(ids).answers)
    assert torch.equal(model.model(given).z_H, model.model(ids).z_H)


@pytest.mark.parametrize("way", ["forward", "latents", "solve"])
def test_batches_that_do_not_fit_are_refused(way: str, tiny_model: Make) -> None:
    model = tiny_model("trm-attn", num_puzzles=5).eval()
    call, ids = ways(model)[way], torch.zeros(2, 16, dtype=torch.long)
    for count in (1, 3, 5):
        with pytest.raises(ValueError, match=rf"puzzle_ids has shape \[{count}\]; allowed: \[2\]"):
            call(ids, puzzle_ids=torch.arange(count))
    for wrong in (torch.ones(2), [0, 1]):
        with pytest.raises(TypeError, match="puzzle_ids"):
            call(ids, puzzle_ids=wrong)
    for one_puzzle in (ids[0], ids[None]):
        with pytest.raises(ValueError, match=r"input_ids has shape \[.*\]; allowed: \[batch, cells\]"):
            call(one_puzzle)
    if way != "solve":
        for count in (1, 3):
            with pytest.raises(ValueError, match=f"the state is of {count} puzzles, input_ids of 2"):
                call(ids, state=model.initial_state(count))


@pytest.mark.parametrize("way", ["forward", "latents", "solve"])
@pytest.mark.parametrize("preset", ["trm-attn", "symbols-attn"])
def test_a_model_without_a_table_takes_the_blank_row_alone(preset: str, way: str, tiny_model: Make) -> None:
    model = tiny_model(preset, num_puzzles=1, puzzle_prefix_len=0).eval()
    call, ids = ways(model)[way], torch.zeros(2, 16, dtype=torch.long)
    call(ids, puzzle_ids=torch.zeros(2, dtype=torch.long))
    with pytest.raises(ValueError, match=r"puzzle_ids holds 0\.\.4; allowed: 0\.\.0"):
        call(ids, puzzle_ids=torch.tensor([0, 4]))


@pytest.mark.parametrize("preset", ONE_OF_A_KIND)
def test_a_model_on_meta_gives_shapes(preset: str, tiny_model: Make) -> None:
    model = tiny_model(preset).to("meta")
    out = model(torch.zeros(2, 16, dtype=torch.long, device="meta"))
    assert out.logits.shape == (2, 16, 6) and out.logits.device.type == "meta"
