"""A checkpoint folder in a process that cannot import modeling_trm: trust_remote_code gives the same function."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import pipeline

from modeling_trm import GridProcessor, TRMForGridReasoning
from tests.forked import WITHOUT_THE_PACKAGE, run_forked

PRESETS_LOADED = ("trm-attn", "tr-mamba2mlpt", "symbols-mamba2")  # together attention, both MLPs, Mamba-2 and symbols
SUDOKU = "1.3.....2...4..."

# Isolated (-I): no PYTHONPATH, no current folder, no user site.
SCRIPT = """
import json
from pathlib import Path
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoFeatureExtractor, AutoModel, AutoProcessor, pipeline

torch.set_num_threads(1)

def observe(folder, ids):
    config = AutoConfig.from_pretrained(folder, trust_remote_code=True)
    model = AutoModel.from_pretrained(folder, trust_remote_code=True)
    for cls in (type(config), type(model)):
        assert cls.__module__.startswith("transformers_modules."), cls
    with torch.no_grad():
        first = model(ids)
        second = model(ids, state=first.state)
    solved = model.solve(ids, halt=True)
    tensors = {"first": first.logits, "second": second.logits, "halt": second.halt_logits, "answers": solved.answers}
    return model, {**tensors, **{"state." + name: value for name, value in model.state_dict().items()}}

def part_of_table(folder):
    core = AutoModel.from_pretrained(folder, trust_remote_code=True, puzzle_tasks=[])
    assert core.config.num_puzzles == 1
    part = AutoModel.from_pretrained(folder, trust_remote_code=True, puzzle_tasks=["2"])
    assert part.puzzle_index.tasks == ("2",)
    assert part.config.num_puzzles == 2
    return part.model.puzzle_emb.weight.detach()

def results(folder):
    for task in ({"task": "grid-reasoning"}, {}):  # twice, and it is the task of the checkpoint
        pipe = pipeline(model=str(folder), trust_remote_code=True, device="cpu", **task)
        assert type(pipe).__module__.startswith("transformers_modules."), type(pipe)
    return pipe, pipe(["SUDOKU", ["1.3.", "....", "2...", "4..."]], views=3, return_trace=True)

alone, *folders = map(Path, sys.argv[1:])
processor = AutoProcessor.from_pretrained(alone, trust_remote_code=True)  # of a folder without a model
processor.save_pretrained(alone / "again")
assert AutoFeatureExtractor.from_pretrained(alone / "again", trust_remote_code=True).task == "sudoku"
for folder in folders:
    autos = (AutoProcessor, AutoFeatureExtractor)
    processors = [auto.from_pretrained(folder, trust_remote_code=True) for auto in autos]
    encoded = {f"encoded.{i}": processor("SUDOKU")["input_ids"] for i, processor in enumerate(processors)}
    model, observed = observe(folder, load_file(folder / "input.safetensors")["ids"])
    observed["part"] = part_of_table(folder)
    save_file({name: t.contiguous() for name, t in {**observed, **encoded}.items()}, folder / "observed.safetensors")
    again = folder / "again"
    pipe, solved = results(folder)
    (folder / "results.json").write_text(json.dumps(solved))
    try:
        pipeline("grid-reasoning", model=str(folder), trust_remote_code=False, device="cpu")
    except ValueError as error:
        assert "trust_remote_code=True" in str(error), error
    else:
        raise SystemExit("the pipeline's code ran without trust")
    model.save_pretrained(again)
    processors[0].save_pretrained(again)
    pipe.save_pretrained(folder / "by_pipeline")
    for copy in (again, folder / "by_pipeline"):
        assert results(copy)[1] == solved
        assert {path.name for path in copy.glob("*_trm.py")} == {path.name for path in folder.glob("*_trm.py")}
    _, observed_again = observe(again, load_file(folder / "input.safetensors")["ids"])
    observed_again["part"] = part_of_table(again)
    for name, value in observed.items():
        assert torch.equal(value, observed_again[name]), name
""".replace("SUDOKU", SUDOKU)


@pytest.mark.slow
def test_remote_code_gives_the_same_function_and_travels_on(
    tiny_model: Callable[..., TRMForGridReasoning], tmp_path: Path
) -> None:
    models, processor = {}, GridProcessor("sudoku", grid_shape=(4, 4))
    for preset in PRESETS_LOADED:
        models[preset] = tiny_model(preset).eval()
        with torch.no_grad():  # never the largest logits: the answers are complete grids
            models[preset].lm_head.weight[:2] = models[preset].lm_head.weight[2:].mean(0)
        models[preset].save_pretrained(tmp_path / preset)
        processor.save_pretrained(tmp_path / preset)
        save_file({"ids": torch.randint(6, (3, 16))}, tmp_path / preset / "input.safetensors")
    processor.save_pretrained(tmp_path / "alone")
    empty = tmp_path / "empty"
    empty.mkdir()
    environment = {
        **{
            name: value for name, value in os.environ.items() if not name.startswith(("HF_", "TRANSFORMERS_", "PYTHON"))
        },
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(tmp_path / "home"),
        "HF_MODULES_CACHE": str(tmp_path / "modules"),
    }
    folders = [str(tmp_path / name) for name in ("alone", *models)]
    done = run_forked("-I", "-c", WITHOUT_THE_PACKAGE + SCRIPT, *folders, cwd=empty, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]

    assert GridProcessor.from_pretrained(tmp_path / "alone" / "again") == processor
    for preset, model in models.items():
        folder = tmp_path / preset
        observed, ids = load_file(folder / "observed.safetensors"), load_file(folder / "input.safetensors")["ids"]
        with torch.no_grad():
            first = model(ids)
            second = model(ids, state=first.state)
        expected = {
            "first": first.logits,
            "second": second.logits,
            "halt": second.halt_logits,
            "answers": model.solve(ids, halt=True).answers,
            "part": model.model.puzzle_emb.weight[[0, 2]],  # rows are numbered where nothing else is said
            "encoded.0": processor(SUDOKU)["input_ids"],
            "encoded.1": processor(SUDOKU)["input_ids"],
            **{f"state.{name}": value for name, value in model.state_dict().items()},
        }
        assert set(observed) == set(expected)
        for name, value in expected.items():
            assert torch.equal(observed[name], value), f"{preset}: {name}"
        # As does the pipeline of this process, where the package's own code runs.
        pipe = pipeline("grid-reasoning", model=str(folder), device="cpu")
        solved = pipe([SUDOKU, SUDOKU], views=3, return_trace=True)
        assert json.loads((folder / "results.json").read_text()) == solved
        assert all(result["answer"] and result["votes"] and result["trace"] for result in solved)
        # The copy saved over there carries the code on, unchanged.
        for path in folder.glob("*_trm.py"):
            assert (folder / "again" / path.name).read_bytes() == path.read_bytes()
        # And this process, with the package, loads that copy as well.
        back = TRMForGridReasoning.from_pretrained(folder / "again")
        assert torch.equal(back(ids).logits, first.logits)
