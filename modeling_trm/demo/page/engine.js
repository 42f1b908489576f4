// What computes a step: WebAssembly on the processor, or the GPU where that is quicker and says the same.
//
// Which of them is quicker depends on the machine, and drivers have faults; so nothing is believed of a GPU. It takes one
// step beside the processor, and a step of it that fails later is computed by the processor, from the same latents.

import { counted } from "./dom.js";

const TOLERANCE = 1e-2; // of a logit, absolute and relative; float32 in another order of summation is a hundred times nearer

export class Engine {
  #ort;
  #graph;
  #tell;
  #here;
  #processor;
  #gpu = null;

  // tell(text): what computes from now on, for the visitor.
  constructor(ort, graph, tell) {
    this.#here = `on the processor, ${counted(ort.env.wasm.numThreads, "thread")}`;
    this.#ort = ort;
    this.#graph = graph;
    this.#tell = tell;
  }

  // trial: inputs of a step with which the GPU is tried, or null for the processor alone.
  async start(trial) {
    this.#processor = await this.#session("wasm");
    let why = "";
    if (trial) {
      try {
        why = await this.#tryGpu(trial);
      } catch (error) {
        why = `the GPU failed: ${error.message}`;
      }
    }
    if (!this.#gpu) this.#tell(why ? `${this.#here} (${why})` : this.#here);
  }

  async run(inputs) {
    if (this.#gpu) {
      try {
        return await this.#gpu.run(inputs);
      } catch (error) {
        this.#gpu = null;
        this.#tell(`${this.#here} (the GPU failed: ${error.message})`);
      }
    }
    return this.#processor.run(inputs);
  }

  // Takes the GPU, or says why not.
  async #tryGpu(trial) {
    const gpu = await this.#session("webgpu");
    await gpu.run(trial); // translates its programs, which takes long and once
    const there = await timed(gpu, trial), here = await timed(this.#processor, trial);
    const times = `${milliseconds(there)} a step against ${milliseconds(here)}`;
    const equal = ["logits", "halt_logits"].every((name) => near(there.found[name].data, here.found[name].data));
    if (equal && there.time < here.time) {
      this.#gpu = gpu;
      this.#tell(`on the GPU, ${times} on the processor`);
      return "";
    }
    await gpu.release();
    return equal ? `the GPU is slower, ${times}` : "the GPU answers otherwise";
  }

  #session(provider) {
    const logSeverityLevel = 3; // errors: it would warn of nodes that a GPU does not compute
    return this.#ort.InferenceSession.create(this.#graph, { executionProviders: [provider], logSeverityLevel });
  }
}

const milliseconds = ({ time }) => `${time.toFixed(0)} ms`;

async function timed(session, inputs) {
  const start = performance.now();
  const found = await session.run(inputs);
  return { found, time: performance.now() - start };
}

const near = (some, others) => some.every((value, i) => Math.abs(value - others[i]) <= TOLERANCE * (1 + Math.abs(others[i])));
