// The server's API: requests with the key, errors with their reason, and streams of events.

const KEY = "tokenloom-key";

/** Why a request failed. A status of 0: the server was not reached. */
export class ApiError extends Error {
  constructor(message, { status = 0, code = null, param = null } = {}) {
    super(message);
    this.status = status;
    this.code = code;
    this.param = param;
  }

  get isDisconnected() {
    return this.status === 0;
  }

  /** Whether the same request can succeed later: the server was not reached, or was busy. */
  get isTemporary() {
    return this.isDisconnected || this.status === 503;
  }
}

/** Requests to the server that this page came from. */
export class Api {
  get key() {
    return sessionStorage.getItem(KEY);
  }

  set key(key) {
    sessionStorage.setItem(KEY, key);
  }

  /** The JSON at a path, of which parameters that are null are left out and lists are repeated. */
  async get(path, params = {}, signal = undefined) {
    const query = new URLSearchParams();
    for (const [name, value] of Object.entries(params)) {
      for (const one of value == null ? [] : [value].flat()) query.append(name, one);
    }
    const text = query.toString();
    return (await this.#request(text ? `${path}?${text}` : path, { signal })).json();
  }

  /** The JSON that answers a body. */
  async post(path, body, signal = undefined) {
    return (await this.#request(path, this.#json(body, signal))).json();
  }

  /** The body of the reply, which is read while it is written. */
  async stream(path, body, signal) {
    return (await this.#request(path, this.#json(body, signal))).body;
  }

  async #request(path, options) {
    const headers = { ...options.headers, ...(this.key ? { Authorization: `Bearer ${this.key}` } : {}) };
    let reply;
    try {
      reply = await fetch(path, { ...options, headers });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new ApiError("The server does not answer. Is tokenloom serve running?");
    }
    if (!reply.ok) throw await failure(reply);
    return reply;
  }

  #json(body, signal) {
    return { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body), signal };
  }
}

/** The path of a run, whose id may contain slashes. */
export function runPath(id, rest = "") {
  return `/api/runs/${encoded(id)}${rest}`;
}

/** The path of a model, whose id may contain slashes. */
export function modelPath(id) {
  return `/api/models/${encoded(id)}`;
}

function encoded(id) {
  return id.split("/").map(encodeURIComponent).join("/");
}

async function failure(reply) {
  try {
    const { error } = await reply.json();
    return new ApiError(error.message, { status: reply.status, code: error.code, param: error.param });
  } catch {
    return new ApiError(`The server answered ${reply.status}.`, { status: reply.status });
  }
}
