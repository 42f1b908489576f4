// One model beside the page, so that the page stays awake: loads its graph, then answers one supervision step at a time.
//
// Messages: { load: model, program, threads, gpu } -> { progress } ..., { ready }
//           { step: run, tokens, puzzleId } -> { frame }     a run begins with the initial latents and keeps its own
// Each answer carries the `id` of its message; { id, error } where it failed. { engine } says what computes, once loaded
// and whenever that changes.

import { unpack } from "./download.js";
import { Engine } from "./engine.js";
import { frameOf } from "./frame.js";

let model, ort, engine, current;

async function load({ load: description, program, threads, gpu }, id) {
  model = description;
  const files = [program.wasm, model.step];
  const received = files.map(() => 0);
  const total = files.reduce((sum, file) => sum + file.bytes, 0);
  const [module, wasm, graph] = await Promise.all([import(`./${program.module}`), ...files.map((file, number) => unpack(file, (count) => {
    received[number] = count;
    postMessage({ id, progress: received.reduce((sum, part) => sum + part, 0), total });
  }))]);
  ort = module;
  ort.env.wasm.wasmPaths = new URL("./runtime/", import.meta.url).href;
  ort.env.wasm.wasmBinary = wasm;
  ort.env.wasm.numThreads = threads;
  engine = new Engine(ort, graph, (text) => postMessage({ engine: text }));
  await engine.start(gpu ? inputs(Array(model.seq_len).fill(1), 0, initialLatents()) : null);
}

async function step({ step: run, tokens, puzzleId }) {
  if (current?.run !== run) current = { run, answers: tokens, latents: initialLatents() };
  const { answers, latents } = current;
  const found = await engine.run(inputs(tokens, puzzleId, latents));
  const frame = frameOf(found.logits.data, found.halt_logits.data[0], tokens, answers, model);
  const next = Object.keys(latents).map((name) => [name, found[`next_${name}`]]);
  current = { run, answers: frame.answers, latents: Object.fromEntries(next) };
  return frame;
}

const inputs = (tokens, puzzleId, latents) => ({
  input_ids: new ort.Tensor("int64", BigInt64Array.from(tokens, BigInt), [1, tokens.length]),
  puzzle_ids: new ort.Tensor("int64", BigInt64Array.of(BigInt(puzzleId)), [1]),
  ...latents,
});

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
      await load(data, data.id);
      postMessage({ id: data.id, ready: true });
    } else {
      postMessage({ id: data.id, frame: await step(data) });
    }
  } catch (error) {
    postMessage({ id: data.id, error: error.message });
  }
};
