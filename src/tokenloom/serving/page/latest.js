// One answer at a time: a newer question ends an older one.

export class Latest {
  #key = null;
  #controller = null;
  reply = null; // the last one, which stays while the next is computed
  error = null;
  isPending = false;

  /** Ask, unless `key` is that of the last question; `done` is called when there is an answer or an error. */
  async ask(key, work, done) {
    if (key === this.#key) return;
    this.#key = key;
    this.#controller?.abort();
    const controller = new AbortController();
    this.#controller = controller;
    this.isPending = true;
    try {
      const reply = await work(controller.signal);
      if (controller.signal.aborted) return;
      this.reply = reply;
      this.error = null;
    } catch (error) {
      if (controller.signal.aborted) return;
      this.error = error;
      if (error.isTemporary) this.#key = null; // the next look asks again
    }
    this.isPending = false;
    done();
  }

  /** Forget the answer. */
  clear() {
    this.#controller?.abort();
    this.#key = this.reply = this.error = null;
    this.isPending = false;
  }
}
