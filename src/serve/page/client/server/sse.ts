/**
 * Server-sent events of a response that `fetch` reads. EventSource sends no header of its own, and
 * so neither an API key nor the last event's number after a reload.
 */

export interface ServerEvent {
  id: string | null;
  type: string;
  data: string;
}

/** Yields whole events, those that come together, until the response ends or is aborted. */
export async function* readEvents(response: Response): AsyncGenerator<ServerEvent[]> {
  if (response.body === null) return;
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const blocks = (rest + value).split(/\r?\n\r?\n/);
      rest = blocks.pop() ?? "";
      const events = blocks.map(parseEvent).filter((event) => event !== null);
      if (events.length > 0) yield events;
    }
  } finally {
    await reader.cancel().catch(() => {});
  }
}

/** null for comments, which keep a connection open. */
export function parseEvent(block: string): ServerEvent | null {
  let id: string | null = null;
  let type = "message";
  const data: string[] = [];
  for (const line of block.split(/\r?\n/)) {
    const [, name = "", value = ""] = /^([^:]*)(?:: ?(.*))?$/s.exec(line) ?? [];
    if (name === "id") id = value;
    else if (name === "event") type = value;
    else if (name === "data") data.push(value);
  }
  return data.length === 0 ? null : { id, type, data: data.join("\n") };
}
