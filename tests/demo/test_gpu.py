"""What computes a step: the GPU where it is quicker and says the same, else the processor."""

import json
from pathlib import Path

import pytest

from tests.demo.browser import Browser
from tests.demo.conftest import served

pytestmark = pytest.mark.slow

# Sessions as onnxruntime has them, on a clock of their own; the page's engine chooses among them. times: of a step.
CHOOSE = """(async (times, logits, failing) => {
  const { Engine } = await import("/engine.js");
  let clock = 0;
  performance.now = () => clock;
  const session = (name) => {
    let runs = 0;
    return { release: () => {}, run: async () => {
      runs += 1;
      if (name === "webgpu" && runs > failing) throw new Error("lost");
      clock += times[name];
      return { logits: { data: Float32Array.of(1, logits[name]) }, halt_logits: { data: Float32Array.of(0) }, name };
    } };
  };
  const create = async (_, { executionProviders: [name] }) => session(name);
  const said = [];
  const ort = { env: { wasm: { numThreads: 2 } }, InferenceSession: { create } };
  const engine = new Engine(ort, null, (text) => said.push(text));
  await engine.start({});
  const ran = [(await engine.run({})).name, (await engine.run({})).name];
  return { said, ran };
})"""


@pytest.mark.parametrize(
    ("times", "logits", "failing", "said", "ran"),
    [
        (5, 1.001, 9, "on the GPU, 5 ms a step against 7 ms on the processor", ["webgpu", "webgpu"]),
        (9, 1.0, 9, "on the processor, 2 threads (the GPU is slower, 9 ms a step against 7 ms)", ["wasm", "wasm"]),
        (5, 1.1, 9, "on the processor, 2 threads (the GPU answers otherwise)", ["wasm", "wasm"]),
        (5, 1.0, 0, "on the processor, 2 threads (the GPU failed: lost)", ["wasm", "wasm"]),
        (5, 1.0, 3, "on the processor, 2 threads (the GPU failed: lost)", ["webgpu", "wasm"]),
    ],
)
def test_a_gpu_is_taken_where_it_is_quicker_and_says_the_same(
    modules: Browser, times: int, logits: float, failing: int, said: str, ran: list[str]
) -> None:
    """failing: the step of the GPU after which none succeeds."""
    arguments = json.dumps([{"webgpu": times, "wasm": 7}, {"webgpu": logits, "wasm": 1.0}, failing])
    found = modules.run(f"{CHOOSE}(...{arguments})")
    assert found["said"][-1] == said
    assert found["ran"] == ran


def test_webgpu_says_the_same_where_the_browser_emulates_it(page: Path, tmp_path: Path) -> None:
    """The runtime's own program for a GPU, on one that the processor emulates: right, and slower, which is said."""
    emulated = ("--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader", "--enable-features=Vulkan")
    for address in served(page):
        with Browser(tmp_path / "profile", *emulated) as browser:
            browser.open(address)
            if not browser.run("navigator.gpu?.requestAdapter().then(Boolean)"):
                pytest.skip("this browser emulates no GPU")
            assert not browser.run("import('/gpu.js').then(({ hasGpu }) => hasGpu())")  # an emulated one is none
            (said,) = browser.run(
                "(async () => { const { Solver } = await import('/solver.js'), said = [];"
                "const { models, runtime } = await (await fetch('/demo.json')).json();"
                "await new Solver(models[2], runtime, { gpu: true, onEngine: (text) => said.push(text) }).load();"
                "return said; })()"
            )
            assert "the GPU is slower" in said or said.startswith("on the GPU")
            assert browser.errors == []
