// The token of a text that is looked at: one that is pointed to, or else the one that the address keeps.

import { numberParam } from "./state.js";
import { html } from "./vendor/lit-html-3.3.3/lit-html.js";

// On a phone, and in a window as narrow, what is told of a token stands over the text, so that it would cover what is pointed to.
const CAN_POINT = matchMedia("(hover: hover) and (min-width: 721px)");

export class TokenCursor {
  #app;
  #host;
  #draw;
  #pointed = null;

  /** `draw` is called when another token of a list in the element `host` is pointed to. */
  constructor(app, host, draw) {
    this.#app = app;
    this.#host = host;
    this.#draw = draw;
  }

  /** The number of the token that the address keeps, at most `last`; null if it names none. */
  kept(last) {
    const t = numberParam(this.#app.state.params, "t", { low: 0 });
    return t === null ? null : Math.min(Math.trunc(t), last);
  }

  /** The number of the token that is looked at, at most `last`; null if there is none. */
  shown(last) {
    return this.#pointed === null ? this.kept(last) : Math.min(this.#pointed, last);
  }

  /** Whether the token that is looked at is the one that the address keeps. */
  isKept(last) {
    const kept = this.kept(last);
    return kept !== null && kept === this.shown(last);
  }

  /** Look at a token while it is pointed to; null ends that. */
  point(index) {
    if (index === this.#pointed) return;
    this.#pointed = index;
    this.#draw();
  }

  /** Keep a token in the address, or drop the one that is kept. */
  keep(index) {
    if (index === null) return;
    const isKept = this.#app.state.params.get("t") === String(index);
    this.#go(isKept ? null : index);
  }

  /** Tokens, the last one with the number `last`, as a list in which pointer and keys choose. */
  list(tokens, last) {
    return html`<div
      class="tokens" role="listbox" aria-label="Tokens"
      @pointerover=${(event) => CAN_POINT.matches && this.point(indexOf(event.target))} @pointerleave=${() => this.point(null)}
      @click=${(event) => this.#click(indexOf(event.target))} @keydown=${(event) => this.#press(event, last)}
    >${tokens}</div>`;
  }

  #click(index) {
    this.keep(index);
    this.#element(index)?.scrollIntoView({ block: "nearest" }); // on a phone, the details may have covered it
  }

  #press(event, last) {
    const index = indexOf(event.target);
    if (index === null) return;
    const { key } = event;
    if (key === "Enter" || key === " ") this.keep(index);
    else if (key === "Escape") this.#go(null);
    else if (key === "ArrowLeft" || key === "ArrowRight") {
      const next = Math.min(last, Math.max(0, index + (key === "ArrowLeft" ? -1 : 1)));
      this.#go(next);
      this.#element(next)?.focus();
    } else return;
    event.preventDefault();
  }

  #element(index) {
    return this.#host.querySelector(`.tokens [data-index="${index}"]`);
  }

  #go(index) {
    this.#pointed = null;
    this.#app.go({ t: index }, { replace: true });
  }
}

function indexOf(element) {
  const token = element.closest("[data-index]");
  return token ? Number(token.dataset.index) : null;
}
