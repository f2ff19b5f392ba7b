// Which passages of texts are copied from the training text of a run: asked once for each text.

import { runPath } from "./api.js";
import { settled } from "./polling.js";

const WAIT = 200; // ms in which the texts must not change, as while a slider is moved
const MOST_KEPT = 200; // replies

export class CopiedPassages {
  #api;
  #done;
  #replies = new Map();
  #wanted = "";
  #ask = settled((list) => this.#askNow(list), WAIT);

  /** `done` is called when there are new replies. */
  constructor(api, done) {
    this.#api = api;
    this.#done = done;
  }

  /** Ask for those of [{run, texts}] that are not known. */
  want(list) {
    const missing = list.filter((one) => one.run && one.texts.length && !this.#replies.has(keyOf(one)));
    const key = JSON.stringify(missing);
    if (key === this.#wanted) return;
    this.#wanted = key;
    if (missing.length) this.#ask(missing);
  }

  /** The reply for texts of a run; null while there is none. */
  of(one) {
    return this.#replies.get(keyOf(one)) ?? null;
  }

  async #askNow(list) {
    for (const one of list) {
      try {
        this.#keep(one, await this.#api.post(runPath(one.run, "/copied"), { texts: one.texts }));
      } catch (error) {
        if (error.isTemporary) this.#wanted = ""; // the next drawing asks again
        else this.#keep(one, { problem: error.message, texts: [] });
      }
    }
    this.#done();
  }

  #keep(one, reply) {
    this.#replies.set(keyOf(one), reply);
    if (this.#replies.size > MOST_KEPT) this.#replies.delete(this.#replies.keys().next().value);
  }
}

function keyOf({ run, texts }) {
  return JSON.stringify([run, texts]);
}

/** A text from one character to another in parts: [{text, passage}], with null for what is not copied. */
export function copiedParts(characters, passages, from = 0, to = characters.length) {
  const parts = [];
  let place = from;
  const add = (end, passage) => {
    if (end > place) parts.push({ text: characters.slice(place, end).join(""), passage });
    place = Math.max(place, end);
  };
  for (const passage of passages) {
    add(Math.min(passage.start, to), null);
    add(Math.min(passage.end, to), passage);
  }
  add(to, null);
  return parts;
}

/** The passages that reach beyond a number of characters, such as those of a prompt. */
export function passagesAfter(passages, characters) {
  return passages.filter((passage) => passage.end > characters);
}

/** How many characters from a place on are in some passage. */
export function countCopied(passages, from = 0) {
  let [count, place] = [0, from];
  for (const { start, end } of passages) {
    count += Math.max(0, end - Math.max(place, start));
    place = Math.max(place, end);
  }
  return count;
}

/** The first passage that has a character from one place to another; null if none has. */
export function passageAt(passages, from, to) {
  return passages.find(({ start, end }) => start < to && end > from) ?? null;
}
