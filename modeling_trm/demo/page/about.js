// What a model is: from its config and its card. Figures carry the 95 % interval that the card has.

import { element, percent } from "./dom.js";

export function about(model) {
  const [outer, inner] = model.cycles;
  const facts = [
    ["Parameters", model.parameters.toLocaleString("en")],
    ["Layers", `${model.block_operators.join(", ")}; ${outer} × ${inner} cycles a step, ${model.hidden_size} channels`],
    ["Training", training(model.training)],
    ...model.accuracy.map((one) => [`Solves, ${one.way}`, figures(one)]),
    ["Its repository", model.repository ? link(model.repository) : "this model's card names none"],
  ];
  if (!model.accuracy.length) facts.splice(3, 0, ["Accuracy", "its card has no evaluation"]);
  if (model.note) facts.unshift(["Note", model.note]);
  return element("article", { class: "model" }, element("h3", {}, model.name), element("dl", {},
    ...facts.flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, value)])));
}

function training(trained) {
  if (!trained) return "its card says nothing of it";
  const minutes = Math.round(trained.seconds / 60);
  return `${trained.steps.toLocaleString("en")} optimiser steps, ${minutes.toLocaleString("en")} minutes on ${trained.hardware}`;
}

function figures(one) {
  const parts = one.by_source.map((part) => `${part.source} ${share(part.accuracy, part.interval)}`);
  const all = `${share(one.accuracy, one.interval)} of ${one.count.toLocaleString("en")} puzzles (${one.dataset})`;
  return parts.length > 1 ? `${all}: ${parts.join("; ")}` : all;
}

const share = (value, [low, high]) => `${percent(value, 1)} (${(100 * low).toFixed(1)} to ${percent(high, 1)})`;

const link = (repository) => element("a", { href: `https://huggingface.co/${repository}`, rel: "noopener" }, repository);
