// The text that the views share, which is a part of the address.

import { LONGEST_LINK, packText, unpackText } from "./state.js";

export class LinkedText {
  #value = "";
  #changes = 0; // of the value: reading and writing an address take time, in which the text may be changed
  #packed = "";
  isTooLong = false; // for the address

  get value() {
    return this.#value;
  }

  set value(value) {
    this.#value = value;
    this.#changes += 1;
  }

  /** Take the text of an address, unless it is changed meanwhile. One that was too long for its address stays. */
  async read(packed) {
    if ((packed ?? "") === this.#packed) return;
    const changes = this.#changes;
    const value = packed === null ? "" : await unpackText(packed);
    if (value === null || changes !== this.#changes) return; // no text, or no longer the newest one
    this.#packed = packed ?? "";
    this.isTooLong = false;
    this.value = value;
  }

  /** Set the text; returns what the address says for it: null if that is too long, undefined if it was changed meanwhile. */
  async write(value) {
    this.value = value;
    const changes = this.#changes;
    const packed = value ? await packText(value) : "";
    if (changes !== this.#changes) return undefined;
    this.isTooLong = packed.length > LONGEST_LINK;
    this.#packed = this.isTooLong ? "" : packed;
    return this.#packed || null;
  }
}
