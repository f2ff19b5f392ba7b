// Text that a model writes: its tokens with their alternatives, and the request that repeats it.

import { shellWord } from "./run_status.js";

/** A sample in which nothing is written yet after some text. */
export function emptySample(text = "", tokens = []) {
  return { text, tokens, base: [...text].length, finish: null };
}

/** The sample with what an event of the stream adds to it. */
export function extended(sample, choice) {
  const { logprobs } = choice;
  const added = (logprobs?.token_ids ?? []).map((id, index) => ({
    id,
    offset: sample.base + logprobs.text_offset[index],
    logprob: logprobs.token_logprobs[index],
    top: (logprobs.top_tokens[index] ?? []).map(alternative),
  }));
  return {
    ...sample,
    text: sample.text + choice.text,
    tokens: [...sample.tokens, ...added],
    finish: choice.finish_reason ?? sample.finish,
  };
}

function alternative({ id, bytes, logprob }) {
  return { id, text: new TextDecoder().decode(Uint8Array.from(bytes)), logprob, probability: Math.exp(logprob) };
}

/** The text of each token: that from its place to the place of the next one. */
export function tokenTexts(sample) {
  const characters = [...sample.text];
  return sample.tokens.map((token, index) =>
    characters.slice(token.offset, sample.tokens[index + 1]?.offset ?? characters.length).join(""),
  );
}

/** The sample up to a token, which another one replaces. */
export function branched(sample, index, other) {
  const replaced = sample.tokens[index];
  const text = [...sample.text].slice(0, replaced.offset).join("") + other.text;
  const token = { id: other.id, offset: replaced.offset, logprob: other.logprob, top: replaced.top };
  return emptySample(text, [...sample.tokens.slice(0, index), token]);
}

/** The end of a prompt that leaves room for new tokens: ids, of how many, and how many tokens are new at most. */
export function fitted({ tokens, max_model_len: context }, wanted) {
  const maxTokens = Math.min(wanted, context);
  return { ids: tokens.slice(-(context + 1 - maxTokens)), total: tokens.length, maxTokens, context };
}

/** The same request in a shell. */
export function curlLine(origin, body, hasKey) {
  const headers = ["Content-Type: application/json", ...(hasKey ? ["Authorization: Bearer KEY"] : [])];
  const options = headers.map((header) => `-H ${shellWord(header)}`).join(" ");
  return `curl ${origin}/v1/completions ${options} -d ${shellWord(JSON.stringify(body))}`;
}

/** The same request with OpenAI's package for Python. */
export function pythonLines(origin, body, hasKey) {
  const named = ["model", "prompt", "max_tokens", "temperature", "top_p", "n", "seed"];
  const extra = Object.fromEntries(Object.entries(body).filter(([name]) => !named.includes(name)));
  const given = named.filter((name) => name in body).map((name) => `${name}=${JSON.stringify(body[name])}`);
  if (Object.keys(extra).length) given.push(`extra_body=${JSON.stringify(extra)}`);
  const key = hasKey ? "KEY" : "unused";
  return [
    "import openai",
    `client = openai.OpenAI(base_url="${origin}/v1", api_key="${key}")`,
    `print(client.completions.create(${given.join(", ")}).choices[0].text)`,
  ].join("\n");
}
