// A tree of texts: one that was typed, and the tokens that were chosen after it, with every branch.

import { packText, unpackText } from "./state.js";

const MOST_NODES = 5000; // that are read from an address
const LOWEST = -9999; // stands for the logarithm of 0, as in the API

/**
 * A tree of one text: {nodes, at, tip}. Node 0 is the text that was typed, any other one a token that was chosen:
 * {parent, id, text, logProbability}. `at` is the node whose text is shown, `tip` the one towards which redo goes.
 */
export function newTree(text) {
  return { nodes: [{ parent: null, id: null, text, logProbability: 0 }], at: 0, tip: 0 };
}

/** The nodes from the first one to a node. */
export function pathTo(tree, node) {
  const path = [node];
  while (tree.nodes[path[0]].parent !== null) path.unshift(tree.nodes[path[0]].parent);
  return path;
}

/** The text of a node: that of its path. */
export function textAt(tree, node = tree.at) {
  return pathTo(tree, node)
    .map((one) => tree.nodes[one].text)
    .join("");
}

/** The tokens that were chosen after a node, the oldest first. */
export function childrenOf(tree, node) {
  return [...tree.nodes.keys()].filter((one) => tree.nodes[one].parent === node);
}

/** The tree at the token that was chosen, which is a new node unless it was chosen here before. */
export function chosen(tree, { id, text, logProbability }) {
  const known = childrenOf(tree, tree.at).find((node) => tree.nodes[node].id === id);
  if (known !== undefined) return moved(tree, known);
  const nodes = [...tree.nodes, { parent: tree.at, id, text, logProbability: Math.max(LOWEST, logProbability) }];
  return { nodes, at: nodes.length - 1, tip: nodes.length - 1 };
}

/** The tree at another node; from one on the way to `tip`, redo still goes there. */
export function moved(tree, node) {
  return { ...tree, at: node, tip: pathTo(tree, tree.tip).includes(node) ? tree.tip : node };
}

/** The node to which undo goes: without the last token; null at the text that was typed. */
export function undoTarget(tree) {
  return tree.nodes[tree.at].parent;
}

/** The node to which redo goes: towards `tip`, or else to the newest branch; null where there is none. */
export function redoTarget(tree) {
  const path = pathTo(tree, tree.tip);
  const next = path[path.indexOf(tree.at) + 1];
  return path.includes(tree.at) && next !== undefined ? next : (childrenOf(tree, tree.at).at(-1) ?? null);
}

/** The tree as rows: nodes without a fork between them, and the rows that begin at the fork after them. */
export function rowsOf(tree, start = 0) {
  const nodes = [start];
  let next = childrenOf(tree, start);
  while (next.length === 1) {
    nodes.push(next[0]);
    next = childrenOf(tree, next[0]);
  }
  return { nodes, branches: next.map((node) => rowsOf(tree, node)) };
}

/** The branches in characters of an address; "" if there are none. The text that was typed is not among them. */
export async function packBranches({ nodes, at, tip }) {
  if (nodes.length === 1) return "";
  const tokens = nodes.slice(1).map(({ parent, id, text, logProbability }) => [parent, id, text, Number(logProbability.toFixed(4))]);
  return packText(JSON.stringify([at, tip, tokens]));
}

/** The tree of packed branches and the text that it shows; null if the two do not fit. */
export async function unpackBranches(packed, text) {
  try {
    const [at, tip, tokens] = JSON.parse(await unpackText(packed));
    if (tokens.length > MOST_NODES || !tokens.every(isToken)) return null;
    const nodes = [newTree("").nodes[0], ...tokens.map(([parent, id, text, logProbability]) => ({ parent, id, text, logProbability }))];
    if (!(at in nodes) || !(tip in nodes)) return null;
    const added = textAt({ nodes }, at);
    if (!text.endsWith(added)) return null;
    nodes[0].text = text.slice(0, text.length - added.length);
    return { nodes, at, tip };
  } catch {
    return null;
  }
}

/** Whether a value is a token whose parent comes before it. */
function isToken([parent, id, text, logProbability], index) {
  const isNode = Number.isInteger(parent) && parent >= 0 && parent <= index;
  return isNode && Number.isInteger(id) && typeof text === "string" && text !== "" && typeof logProbability === "number";
}
