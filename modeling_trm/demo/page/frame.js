// What a supervision step says: from its logits to what the page shows. Shapes: L cells, V vocabulary.

// The arg max of each cell, with a blank token only where the puzzle is blank (reasoning_trm.answers_from_logits);
// confidence and entropy (nats) as diagnostics/measures.py has them, the latter over the cells to be filled in.
export function frameOf(logits, haltLogit, tokens, before, model) {
  const V = model.vocab_size;
  const free = tokens.map((token) => model.blank_token_id === null || token === model.blank_token_id);
  const answers = [], confidence = [];
  let entropy = 0;
  for (let cell = 0; cell < tokens.length; cell += 1) {
    const { best, likely, spread } = measure(logits.subarray(cell * V, (cell + 1) * V));
    answers.push(free[cell] ? best : tokens[cell]);
    confidence.push(free[cell] ? likely : 1);
    if (free[cell]) entropy += spread;
  }
  const changed = answers.flatMap((token, cell) => (token === before[cell] ? [] : [cell]));
  entropy /= Math.max(1, free.filter(Boolean).length);
  return { answers, confidence, entropy, changed, haltProbability: 1 / (1 + Math.exp(-haltLogit)) };
}

// The likeliest token, its probability and the entropy of one cell's logits.
function measure(logits) {
  let best = 0;
  logits.forEach((logit, token) => { if (logit > logits[best]) best = token; });
  let total = 0, weighted = 0;
  for (const logit of logits) {
    const p = Math.exp(logit - logits[best]);
    total += p;
    weighted += p * (logit - logits[best]);
  }
  return { best, likely: 1 / total, spread: Math.log(total) - weighted / total };
}
