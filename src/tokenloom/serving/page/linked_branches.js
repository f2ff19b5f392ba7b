// The tree of the Next view, which is a part of the address.

import { moved, newTree, textAt, unpackBranches } from "./branches.js";
import { LONGEST_LINK } from "./state.js";

export class LinkedBranches {
  #packed = null; // what the address says
  tree = newTree("");
  isTooLong = false; // for the address

  /** Take the branches of an address that has a text. Those that were too long for it stay, if they have the text. */
  async read(packed, text) {
    if (packed === this.#packed && textAt(this.tree) === text) return;
    this.#packed = packed;
    if (packed === null) {
      const node = this.isTooLong ? this.tree.nodes.findIndex((_, one) => textAt(this.tree, one) === text) : -1;
      this.tree = node < 0 ? newTree(text) : moved(this.tree, node);
      this.isTooLong &&= node >= 0;
      return;
    }
    const tree = await unpackBranches(packed, text);
    if (packed !== this.#packed) return; // meanwhile another address was read
    this.tree = tree ?? newTree(text);
    this.isTooLong = false;
  }

  /** Begin again with a text that was typed. */
  begin(text) {
    this.tree = newTree(text);
    this.isTooLong = false;
  }

  /** What the address says for packed branches beside `used` characters; null if there are none or no room. */
  accept(packed, used) {
    this.isTooLong = packed.length + used > LONGEST_LINK;
    this.#packed = this.isTooLong || packed === "" ? null : packed;
    return this.#packed;
  }
}
