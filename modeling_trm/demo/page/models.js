// Which models are shown, and how far each has come: at once, or on request with the progress of its download.

import { element, megabytes, percent } from "./dom.js";
import { programOf, Solver } from "./solver.js";

export class Models {
  #solvers = new Map();
  #lines = new Map();

  constructor(contents, container) {
    this.contents = contents;
    this.container = container;
  }

  of(kind) {
    return this.contents.models.filter((model) => model.task === kind.task && String(model.grid_shape) === String(kind.grid_shape));
  }

  // The models that are shown: the small ones begin to load, of the others a button says how large they are.
  show(models) {
    this.container.replaceChildren(...models.map((model) => this.#line(model)));
    for (const model of models) if (!model.large) this.load(model).catch(() => {}); // its line says what failed
  }

  solver(model) {
    if (!this.#solvers.has(model.name)) {
      const [text] = this.#line(model).children;
      const onEngine = (engine) => { text.textContent = `${model.name}: ready, ${engine}`; };
      this.#solvers.set(model.name, new Solver(model, this.contents.runtime, { onEngine }));
    }
    return this.#solvers.get(model.name);
  }

  async load(model) {
    const line = this.#line(model), [text, bar, button] = line.children;
    const solver = this.solver(model);
    if (solver.ready) return;
    button.hidden = true;
    bar.hidden = false;
    try {
      await solver.load((received, total) => {
        bar.max = total;
        bar.value = received;
        text.textContent = `${model.name}: ${megabytes(received)} of ${megabytes(total)}`;
        bar.textContent = percent(received / total);
      });
    } catch (error) {
      text.textContent = `${model.name} could not be loaded: ${error.message}`;
      button.hidden = false;
      throw error;
    } finally {
      bar.hidden = true;
    }
  }

  #line(model) {
    if (!this.#lines.has(model.name)) {
      const button = element("button", { type: "button" }, "Load");
      programOf(model, this.contents.runtime).then(({ program }) => {
        button.textContent = `Load ${megabytes(model.step.bytes + program.wasm.bytes)}`;
      });
      button.addEventListener("click", () => this.load(model).catch(() => {})); // its line says what failed
      const waiting = model.large ? `${model.name} is not loaded yet` : `${model.name}: loading`;
      this.#lines.set(model.name, element("div", { class: "loading" }, element("p", {}, waiting),
        element("progress", { hidden: true, "aria-label": `Download of ${model.name}` }), button));
      button.hidden = !model.large;
    }
    return this.#lines.get(model.name);
  }
}
