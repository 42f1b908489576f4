// Elements with attributes and children in one expression; text is always text, never markup.

const SVG = "http://www.w3.org/2000/svg";

export const byId = (id) => document.getElementById(id);

export const element = (tag, attributes = {}, ...children) => fill(document.createElement(tag), attributes, children);
export const drawn = (tag, attributes = {}, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children);
  return node;
}

// The options of a select: [[value, text]], or [{ group, options }].
export function setOptions(select, entries) {
  const option = ([value, text]) => element("option", { value }, text);
  select.replaceChildren(...entries.map((entry) => (
    entry.group ? element("optgroup", { label: entry.group }, ...entry.options.map(option)) : option(entry)
  )));
}

// ---- words and places

export const percent = (share, digits = 0) => `${(100 * share).toFixed(digits)} %`;
export const megabytes = (bytes) => `${(bytes / 1e6).toFixed(1)} MB`;
export const counted = (count, noun) => `${count} ${noun}${count === 1 ? "" : "s"}`;
export const notAllowed = (cell, kind) => `“${cell}” is not allowed here; allowed: ${kind.characters}`;

export function placeName(place, kind) {
  const width = kind.grid_shape[1];
  return `Row ${Math.floor(place / width) + 1}, column ${(place % width) + 1}`;
}

export function rowsOf(grid, kind) {
  const [height, width] = kind.grid_shape;
  return Array.from({ length: height }, (_, row) => grid.slice(row * width, (row + 1) * width));
}
