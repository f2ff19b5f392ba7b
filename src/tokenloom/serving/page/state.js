// The state of the page: what its address says, and nothing besides.

export const VIEWS = ["runs", "read", "next", "write", "models"];
export const LONGEST_LINK = 8000; // characters; some programs cut longer addresses
const LONGEST_TEXT = 200_000; // characters, as the server accepts them

/** The view and its parameters in a hash such as "#/read?m=story". */
export function parseHash(hash) {
  const text = hash.replace(/^#\/?/, "");
  const mark = text.indexOf("?");
  const name = mark < 0 ? text : text.slice(0, mark);
  return {
    view: VIEWS.includes(name) ? name : VIEWS[0],
    params: new URLSearchParams(mark < 0 ? "" : text.slice(mark + 1)),
  };
}

/** The hash of a state. */
export function formatHash({ view, params }) {
  const query = params.toString().replaceAll("%40", "@").replaceAll("%2F", "/");
  return `#/${view}${query ? `?${query}` : ""}`;
}

/** The parameters with changes: null removes one, a list sets several values. */
export function withParams(params, changes) {
  const changed = new URLSearchParams(params);
  for (const [name, value] of Object.entries(changes)) {
    changed.delete(name);
    for (const one of value == null ? [] : [value].flat()) changed.append(name, one);
  }
  return changed;
}

/** A number in the parameters, kept between two limits; the default if it is missing or not a number. */
export function numberParam(params, name, { initial = null, low = -Infinity, high = Infinity } = {}) {
  const text = params.get(name);
  const value = text ? Number(text) : NaN;
  return Number.isFinite(value) ? Math.min(high, Math.max(low, value)) : initial;
}

/** The key in a hash such as "#key=secret", which `tokenloom serve --api-key` prints; null if there is none. */
export function keyIn(hash) {
  return hash.startsWith("#key=") ? new URLSearchParams(hash.slice(1)).get("key") : null;
}

/** A text, deflated, in characters of an address. */
export async function packText(text) {
  const bytes = await piped(new TextEncoder().encode(text), new CompressionStream("deflate-raw"));
  const binary = Array.from(bytes, (byte) => String.fromCharCode(byte)).join("");
  return btoa(binary).replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "");
}

/** The text of `packText`; null if the characters are not of one. */
export async function unpackText(packed) {
  try {
    const binary = atob(packed.replaceAll("-", "+").replaceAll("_", "/"));
    const bytes = Uint8Array.from(binary, (character) => character.charCodeAt(0));
    const text = new TextDecoder().decode(await piped(bytes, new DecompressionStream("deflate-raw")));
    return text.slice(0, LONGEST_TEXT);
  } catch {
    return null;
  }
}

async function piped(bytes, stream) {
  return new Uint8Array(await new Response(new Blob([bytes]).stream().pipeThrough(stream)).arrayBuffer());
}
