// What is known of one run: its metrics, samples and files, kept up to date by asking what was appended.

import { runPath } from "./api.js";
import { SHOWN } from "./run_drawing.js";
import { appendRecords, columnsOf } from "./series.js";

const MOST_REQUESTS = 50; // for what was appended, at a time

export class RunFeed {
  #api;
  #recordsCursor = null;
  #samplesCursor = null;
  #version = null;
  #filesVersion = null;
  #refreshing = null;

  constructor(api, id) {
    this.#api = api;
    this.id = id;
    this.columns = null; // null while nothing was received
    this.zoomed = null;
    this.samples = [];
    this.files = null;
    this.changes = 0; // of what is drawn
  }

  /** Read what has changed since the last time, if the row of the run says that something has. */
  refresh(row) {
    const version = `${row.state} ${row.changed}`;
    if (version === this.#version) return Promise.resolve();
    this.#refreshing ??= this.#read(row, version).finally(() => (this.#refreshing = null));
    return this.#refreshing;
  }

  async #read(row, version) {
    const isFirst = this.columns === null;
    const filesVersion = JSON.stringify([row.state, row.checkpoint, row.best_step, row.val_loss, row.problem]);
    const readsFiles = filesVersion === this.#filesVersion ? null : this.#readFiles();
    await Promise.all([isFirst ? this.#load() : this.#follow(), this.#readSamples(), readsFiles]);
    [this.#version, this.#filesVersion] = [version, filesVersion];
  }

  /** Read the points from one step to another, if the columns are in buckets; null for all steps. */
  async zoom(range) {
    const isBucketed = this.columns && [...this.columns.values()].some((column) => column.bucketed);
    const steps = range && isBucketed && [Math.max(0, Math.floor(range[0])), Math.max(0, Math.ceil(range[1]))];
    this.zoomed = steps ? columnsOf(await this.#series({ start: steps[0], stop: steps[1] })) : null;
    this.changes += 1;
  }

  #series(steps = {}) {
    return this.#api.get(runPath(this.id, "/series"), { metric: SHOWN, ...steps });
  }

  async #load() {
    const reply = await this.#series();
    this.columns = columnsOf(reply);
    this.#recordsCursor = reply.cursor;
    this.changes += 1;
  }

  async #follow() {
    for (let count = 0; count < MOST_REQUESTS; count += 1) {
      const reply = await this.#api.get(runPath(this.id, "/records"), { cursor: this.#recordsCursor });
      if (reply.reset) return this.#load(); // the run was resumed
      appendRecords(this.columns, reply.records);
      if (this.zoomed) appendRecords(this.zoomed, reply.records);
      this.#recordsCursor = reply.cursor;
      this.changes += 1;
      if (!reply.more) return;
    }
  }

  async #readSamples() {
    for (let count = 0; count < MOST_REQUESTS; count += 1) {
      const reply = await this.#api.get(runPath(this.id, "/samples"), { cursor: this.#samplesCursor });
      this.samples = reply.reset ? reply.samples : [...this.samples, ...reply.samples];
      this.#samplesCursor = reply.cursor;
      if (!reply.more) return;
    }
  }

  async #readFiles() {
    this.files = await this.#api.get(runPath(this.id));
    this.changes += 1;
  }
}
