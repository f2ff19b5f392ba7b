// The models of the server: how the picker lists them, and the checkpoints of each run.

import { compact, counted, whole } from "./format.js";

/**
 * Groups of options, one for each run and one for models without a run: {id, label, isChosen}. The same weights are one
 * option, whatever they are called; it is chosen if `chosen` is one of their ids.
 */
export function modelGroups(models, rows, chosen) {
  const weights = new Map();
  for (const model of models) {
    if (!weights.has(model.name)) weights.set(model.name, { ...model, ids: [] });
    weights.get(model.name).ids.push(model.id);
  }
  const groups = new Map();
  const training = new Set(rows.filter((row) => row.state === "training").map((row) => row.run));
  for (const one of [...weights.values()].sort((a, b) => (a.run === b.run ? b.step - a.step : 0))) {
    const name = one.run ?? "Models";
    if (!groups.has(name)) groups.set(name, []);
    const isChosen = one.ids.includes(chosen);
    const isPinned = isChosen && chosen === one.name && one.ids[0] !== one.name;
    const label = weightsLabel(one, training.has(one.run)) + (isPinned ? ", pinned" : "");
    groups.get(name).push({ id: one.ids[0], label, isChosen });
  }
  return [...groups].map(([label, options]) => ({ label, options }));
}

/** Weights as they are called in a list of models: "story @ 329, live, best". */
function weightsLabel({ run, step, ids }, isTraining) {
  if (run === null) return ids[0];
  const names = { [run]: isTraining ? "live" : "newest", [`${run}@best`]: "best", [`${run}@first`]: "first" };
  return [`${run} @ ${whole(step)}`, ...ids.map((id) => names[id]).filter(Boolean)].join(", ");
}

/**
 * The model with which one is compared if no other is named: the first checkpoint of its run, for this the newest one,
 * and else any other; null if there is none.
 */
export function comparedByDefault(models, model) {
  const ofRun = [`${model.run}@first`, model.run].map((id) => models.find((one) => one.id === id));
  return [...ofRun, ...models].find((one) => one && one.name !== model.name) ?? null;
}

/** The model with an id, or the first one without an id; null if there is none. */
export function findModel(models, id) {
  return (id ? models.find((model) => model.id === id) : models[0]) ?? null;
}

/** Those of the ids, null for none, that no model has. */
export function missingIds(models, ids) {
  return ids.filter((id) => id && !findModel(models, id));
}

/** The id that names the same weights tomorrow: RUN@step-N instead of RUN. */
export function pinnedId(models, id) {
  return findModel(models, id)?.name ?? id;
}

/**
 * The runs and the models without a run, in the order of the list: {id, row, checkpoints, bytes}.
 * `row` is that of the table of runs, null without a run; `bytes` are those in memory.
 */
export function modelEntries(models, rows, inMemory = []) {
  const entries = new Map();
  for (const model of models) {
    const id = model.run ?? model.id;
    if (!entries.has(id)) entries.set(id, { id, row: rows.find((row) => row.run === model.run) ?? null, models: [] });
    entries.get(id).models.push(model);
  }
  for (const row of rows) if (!entries.has(row.run)) entries.set(row.run, { id: row.run, row, models: [] });
  return [...entries.values()].map(({ id, row, models }) => {
    const checkpoints = checkpointsOf(models, inMemory);
    return { id, row, checkpoints, bytes: checkpoints.reduce((sum, one) => sum + one.bytes, 0) };
  });
}

/** The different weights among the models of a run, the newest first: {id, step, created, bytes, isNewest, isBest, isFirst}. */
export function checkpointsOf(models, inMemory = []) {
  const named = new Map();
  for (const model of models) {
    if (!named.has(model.name) || model.id === model.name) named.set(model.name, model);
  }
  const nameOf = (id) => models.find((model) => model.id === id)?.name;
  return [...named.values()]
    .sort((a, b) => b.step - a.step)
    .map(({ id, name, run, step, created }) => ({
      id,
      name,
      step,
      created,
      bytes: inMemory.filter((use) => use.name === name).reduce((sum, use) => sum + use.memory_bytes, 0),
      isNewest: run !== null && nameOf(run) === name,
      isBest: nameOf(`${run}@best`) === name,
      isFirst: named.size > 1 && nameOf(`${run}@first`) === name,
    }));
}

/** What is told of a shape: [label, value, explanation]. */
export function shapeFacts(shape, row) {
  const shared = shape.kv_heads < shape.heads ? `${counted(shape.kv_heads, "head")} of keys and values` : "";
  return [
    ["Family", shape.family, { gpt2: "as published", modern: "as in Qwen3" }[shape.family] ?? ""],
    ["Parameters", compact(shape.parameters), shape.parameters >= 1000 ? whole(shape.parameters) : ""],
    ["Layers", whole(shape.layers), ""],
    ["Heads", whole(shape.heads), [`${whole(shape.head_width)} wide`, shared].filter(Boolean).join(", ")],
    ["Width", whole(shape.width), `MLP ${whole(shape.mlp_width)}`],
    ["Context", whole(shape.context), "tokens"],
    ["Vocabulary", whole(shape.vocabulary), row?.tokenizer ?? ""],
    ...(row?.data ? [["Trained on", "", row.data]] : []),
  ];
}

/** What the models depend on: a different text if a run began or ended, or if the server says so. */
export function modelsVersion(rows, served) {
  return JSON.stringify([served, rows.map((row) => [row.run, row.state, row.problem])]);
}
