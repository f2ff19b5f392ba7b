// Server-sent events, as a stream of completions has them.

/** The data of the whole events in a text, and the rest, which is the begin of another one. */
export function splitEvents(text) {
  const parts = text.split("\n\n");
  const rest = parts.pop();
  const data = parts.map((part) =>
    part
      .split("\n")
      .filter((line) => line.startsWith("data:"))
      .map((line) => line.slice(5).trimStart())
      .join("\n"),
  );
  return { data: data.filter((one) => one !== ""), rest };
}

/** The objects of a stream of events, until [DONE]. */
export async function* readEvents(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const events = splitEvents(rest + value);
      rest = events.rest;
      for (const data of events.data) {
        if (data === "[DONE]") return;
        yield JSON.parse(data);
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}
