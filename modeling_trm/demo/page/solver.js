// A model and its runs, as the page sees them; the work is done in worker.js.

const MOST_THREADS = 4; // more gain nothing on grids of this size

// Threads need a page that is isolated from others (crossOriginIsolated), which is up to the headers of its server.
export const threads = () => (globalThis.crossOriginIsolated ? Math.min(MOST_THREADS, navigator.hardwareConcurrency) : 1);

export class Solver {
  #worker = new Worker(new URL("./worker.js", import.meta.url), { type: "module" });
  #waiting = new Map();
  #number = 0;
  #loading = null;

  constructor(model, runtime) {
    this.model = model;
    this.runtime = runtime;
    this.ready = false;
    this.#worker.onmessage = ({ data }) => this.#receive(data);
    this.#worker.onerror = (event) => {
      for (const { reject } of this.#waiting.values()) reject(new Error(event.message ?? "the model's worker ended"));
    };
  }

  // Downloads and prepares the model, once. onProgress(received, total) in bytes.
  load(onProgress = () => {}) {
    this.#loading ??= this.#ask({ load: this.model, runtime: this.runtime, threads: threads() }, onProgress).then(() => {
      this.ready = true;
    }, (error) => {
      this.#loading = null; // so that it can be tried again
      throw error;
    });
    return this.#loading;
  }

  async step(run, tokens) {
    return (await this.#ask({ step: run, tokens })).frame;
  }

  #ask(message, onProgress) {
    const id = (this.#number += 1);
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject, onProgress });
      this.#worker.postMessage({ id, ...message });
    });
  }

  #receive(data) {
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

  // halt: stop where the model would; else after maxSteps.
  constructor(solver, tokens, { maxSteps, halt }) {
    Object.assign(this, { solver, tokens, maxSteps, halt, name: (Run.#number += 1), frames: [] });
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
    this.#next ??= this.solver.step(this.name, this.tokens).then((frame) => {
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
