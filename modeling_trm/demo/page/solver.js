// A model and its runs, as the page sees them; the work is done in worker.js.

import { hasGpu } from "./gpu.js";

const MOST_THREADS = 4; // more gain nothing on grids of this size

// Threads need a page that is isolated from others (crossOriginIsolated), which is up to the headers of its server. In a
// small model they wait for each other longer than they compute.
const threadsOf = ({ large }) => (large && globalThis.crossOriginIsolated ? Math.min(MOST_THREADS, navigator.hardwareConcurrency) : 1);

// { program, gpu }: the file of onnxruntime for a model. A small one does without a GPU, whose program is twice as large.
export async function programOf(model, runtime, gpu = null) {
  const wanted = gpu ?? (model.large && await hasGpu());
  return { program: runtime.programs[wanted ? "gpu" : "processor"], gpu: wanted };
}

export class Solver {
  #worker = new Worker(new URL("./worker.js", import.meta.url), { type: "module" });
  #waiting = new Map();
  #number = 0;
  #loading = null;

  // gpu: whether one is tried; null: if the model is large and there is one. onEngine(text): what computes from now on.
  constructor(model, runtime, { gpu = null, onEngine = () => {} } = {}) {
    Object.assign(this, { model, runtime, gpu, onEngine, ready: false });
    this.#worker.onmessage = ({ data }) => this.#receive(data);
    this.#worker.onerror = (event) => {
      for (const { reject } of this.#waiting.values()) reject(new Error(event.message ?? "the model's worker ended"));
    };
  }

  // Downloads and prepares the model, once. onProgress(received, total) in bytes.
  load(onProgress = () => {}) {
    this.#loading ??= this.#load(onProgress).catch((error) => {
      this.#loading = null; // so that it can be tried again
      throw error;
    });
    return this.#loading;
  }

  async #load(onProgress) {
    const { program, gpu } = await programOf(this.model, this.runtime, this.gpu);
    await this.#ask({ load: this.model, program, gpu, threads: threadsOf(this.model) }, onProgress);
    this.ready = true;
  }

  async step(run, tokens, puzzleId) {
    return (await this.#ask({ step: run, tokens, puzzleId })).frame;
  }

  #ask(message, onProgress) {
    const id = (this.#number += 1);
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject, onProgress });
      this.#worker.postMessage({ id, ...message });
    });
  }

  #receive(data) {
    if ("engine" in data) {
      this.onEngine(data.engine);
      return;
    }
    const asked = this.#waiting.get(data.id);
    if ("progress" in data) {
      asked.onProgress(data.progress, data.total);
      return;
    }
    this.#waiting.delete(data.id);
    if (data.error) asked.reject(new Error(data.error));
    else asked.resolve(data);
  }
}

// Supervision steps of a solver on one puzzle: what TRMForGridReasoning.solve does with a batch of one.
export class Run {
  static #number = 0;
  #next = null;

  // halt: stop where the model would; else after maxSteps. puzzleId: the row of the model's puzzle table.
  constructor(solver, tokens, { maxSteps, halt, puzzleId = 0 }) {
    Object.assign(this, { solver, tokens, maxSteps, halt, puzzleId, name: (Run.#number += 1), frames: [] });
  }

  // The first step whose halt probability is above the model's threshold, where it has one; 0: not yet.
  get haltStep() {
    const { halt } = this.solver.model;
    return halt === null ? 0 : this.frames.findIndex((frame) => frame.haltProbability > halt) + 1;
  }

  get finished() {
    return this.frames.length >= this.maxSteps || (this.halt && this.haltStep > 0);
  }

  // One more step; those who ask while it is computed wait for the same one.
  advance() {
    this.#next ??= this.solver.step(this.name, this.tokens, this.puzzleId).then((frame) => {
      this.frames.push(frame);
    }).finally(() => {
      this.#next = null;
    });
    return this.#next;
  }
}

// The last frame and the number of steps, as solve() returns them.
export async function solve(solver, tokens, options) {
  const run = new Run(solver, tokens, options);
  while (!run.finished) await run.advance();
  return { ...run.frames.at(-1), steps: run.frames.length };
}
