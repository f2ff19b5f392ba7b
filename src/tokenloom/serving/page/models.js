// The models of the server as the picker lists them.

import { whole } from "./format.js";

/** Groups of options: one for each run, and one for models without a run. */
export function modelGroups(models, rows) {
  const groups = new Map();
  const training = new Set(rows.filter((row) => row.state === "training").map((row) => row.run));
  for (const model of models) {
    const name = model.run ?? "Models";
    if (!groups.has(name)) groups.set(name, []);
    groups.get(name).push({ id: model.id, label: modelLabel(model, training.has(model.run)) });
  }
  return [...groups].map(([label, options]) => ({ label, options }));
}

/** A model as it is called in the picker: "story @ 329, live". */
export function modelLabel(model, isTraining) {
  if (model.run === null) return model.id;
  const position = `${model.run} @ ${whole(model.step)}`;
  if (model.id === model.run) return `${position}, ${isTraining ? "live" : "newest"}`;
  return model.id === `${model.run}@best` ? `${position}, best` : position;
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
