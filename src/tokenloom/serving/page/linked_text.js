// The text that the views share, which is a part of the address.

import { LONGEST_LINK, packText, unpackText } from "./state.js";

export class LinkedText {
  #packed = "";
  value = "";
  isTooLong = false; // for the address

  /** Take the text of an address. One that was too long for its address stays. */
  async read(packed) {
    if ((packed ?? "") === this.#packed) return;
    const value = packed === null ? "" : await unpackText(packed);
    if (value === null) return; // the characters are not of a text
    this.#packed = packed ?? "";
    this.isTooLong = false;
    this.value = value;
  }

  /** Set the text; returns what the address says for it, or null if that is too long. */
  async write(value) {
    this.value = value;
    const packed = value ? await packText(value) : "";
    if (value !== this.value) return this.#packed || null; // meanwhile another text was set
    this.isTooLong = packed.length > LONGEST_LINK;
    this.#packed = this.isTooLong ? "" : packed;
    return this.#packed || null;
  }
}
