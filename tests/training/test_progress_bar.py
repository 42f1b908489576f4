"""The progress bar: it says that the first step compiles, and reckons the time left from the end of that step."""

import io

from tqdm.auto import tqdm

from modeling_trm.training.trainer import TRAINING, Trainer


def test_the_first_step_is_no_measure_of_the_others():
    bar = tqdm(total=10, initial=3, desc="compiling, about 40 s", file=io.StringIO())
    bar.start_t -= 1000  # as if the compilation had taken so long
    Trainer._advance(bar, 4)
    shown = bar.format_dict
    assert (shown["n"], shown["initial"]) == (4, 4)
    assert shown["elapsed"] < 500 and shown["prefix"].startswith(TRAINING)
    Trainer._advance(bar, 5)
    assert bar.format_dict["n"] == 5
    bar.close()


def test_without_compilation_every_step_counts():
    bar = tqdm(total=10, desc=TRAINING, file=io.StringIO())
    bar.start_t -= 1000
    Trainer._advance(bar, 1)
    assert bar.format_dict["elapsed"] > 500
    bar.close()
    Trainer._advance(tqdm(total=10, desc="compiling", disable=True), 1)  # another process than the main one
