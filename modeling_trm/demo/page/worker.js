// One model beside the page, so that the page stays awake: loads its graph, then answers one supervision step at a time.
//
// Messages: { load: model, runtime, threads } -> { progress } ..., { ready }
//           { step: run, tokens } -> { frame }     a run begins with the initial latents and keeps its own
// Each answer carries the `id` of its message; { id, error } where it failed.

import * as ort from "./runtime/ort.wasm.min.mjs";
import { unpack } from "./download.js";
import { frameOf } from "./frame.js";

let model, session, current;

async function load(description, runtime, threads, id) {
  model = description;
  const files = [runtime.wasm, model.step];
  const received = files.map(() => 0);
  const total = files.reduce((sum, file) => sum + file.bytes, 0);
  const [wasm, graph] = await Promise.all(files.map((file, number) => unpack(file, (count) => {
    received[number] = count;
    postMessage({ id, progress: received.reduce((sum, part) => sum + part, 0), total });
  })));
  ort.env.wasm.wasmPaths = new URL("./runtime/", import.meta.url).href;
  ort.env.wasm.wasmBinary = wasm;
  ort.env.wasm.numThreads = threads;
  session = await ort.InferenceSession.create(graph, { executionProviders: ["wasm"] });
}

async function step(run, tokens) {
  if (current?.run !== run) current = { run, answers: tokens, latents: initialLatents() };
  const { run: _, answers, latents } = current;
  const found = await session.run({
    input_ids: new ort.Tensor("int64", BigInt64Array.from(tokens, BigInt), [1, tokens.length]),
    puzzle_ids: new ort.Tensor("int64", new BigInt64Array(1), [1]),
    ...latents,
  });
  const frame = frameOf(found.logits.data, found.halt_logits.data[0], tokens, answers, model);
  const next = Object.keys(latents).map((name) => [name, found[`next_${name}`]]);
  current = { run, answers: frame.answers, latents: Object.fromEntries(next) };
  return frame;
}

// The latents before the first step: the same vector at every position, of every symbol field too.
function initialLatents() {
  const shape = [1, ...model.latent_shape];
  return Object.fromEntries(Object.entries(model.initial).map(([name, vector]) => {
    const values = new Float32Array(shape.reduce((product, size) => product * size));
    for (let start = 0; start < values.length; start += vector.length) values.set(vector, start);
    return [name, new ort.Tensor("float32", values, shape)];
  }));
}

onmessage = async ({ data }) => {
  try {
    if (data.load) {
      await load(data.load, data.runtime, data.threads, data.id);
      postMessage({ id: data.id, ready: true });
    } else {
      postMessage({ id: data.id, frame: await step(data.step, data.tokens) });
    }
  } catch (error) {
    postMessage({ id: data.id, error: error.message });
  }
};
