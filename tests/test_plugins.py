"""The suite starts beside plugins of pytest that others have installed."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# As pytest-benchmark does when xdist is there; our warnings are errors, and here one would end the run.
PLUGIN = """
import warnings
def pytest_configure(config):
    warnings.warn("Benchmarks are automatically disabled because xdist plugin is active.")
"""


def test_a_plugin_for_benchmarks_that_warns_is_not_loaded(tmp_path: Path) -> None:
    (tmp_path / "benchmark_plugin.py").write_text(PLUGIN)
    package = tmp_path / "benchmark_plugin-1.0.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: benchmark-plugin\nVersion: 1.0\n")
    (package / "entry_points.txt").write_text("[pytest11]\nbenchmark = benchmark_plugin\n")
    (tmp_path / "test_nothing.py").write_text("def test_nothing():\n    pass\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", ROOT / "pyproject.toml"]
    given = {"cwd": tmp_path, "env": {"PYTHONPATH": str(tmp_path)}, "capture_output": True, "text": True}
    done = subprocess.run([*map(str, command), "test_nothing.py"], check=False, **given)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout
