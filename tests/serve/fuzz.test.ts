/**
 * Requests that nobody would send: none is answered with 500, and none ends the server.
 */
import { expect, test } from "bun:test";
import fc from "fast-check";
import { openApiDocument } from "../../src/serve/openapi.ts";
import { fieldKeys } from "../../src/settings/request-schema.ts";
import { asField } from "../../src/settings/values.ts";
import { seed, seedName } from "../support/seed.ts";
import { startTestServer } from "../support/serve-fixture.ts";

const requestCount = 10_000;

const paths = Object.keys(openApiDocument().paths).filter((path) => !/events$|refresh/.test(path));
const word = fc.oneof(
  fc.string(),
  fc.string({ unit: "binary" }),
  fc.constantFrom("..", "%2e%2e", "0", "-1", "01a22a3a-89e2-74c0-b0a9-6bd1d92f5d92", "x.png"),
);
const value = fc.oneof(
  fc.jsonValue(),
  fc.double(),
  fc.constantFrom(-1, 0, 1, 32, 1e308, "auto", "", null, [], {}, "1".repeat(40), [null]),
);
const request = fc.dictionary(fc.constantFrom(...fieldKeys.map(asField)), value, { maxKeys: 4 });
const spec = fc.record(
  {
    request: fc.oneof({ weight: 4, arbitrary: request }, { weight: 1, arbitrary: value }),
    ...{ model: value, priority: value, preview_steps: value, format: value, quality: value },
    ...{ what: value, key: value, mine: value },
  },
  { requiredKeys: [] },
);
const body = fc.oneof(
  spec.map((each) => JSON.stringify(each)),
  fc.string(),
  fc.uint8Array({ maxLength: 200 }),
);
const asked = fc.record({
  method: fc.constantFrom("GET", "POST", "DELETE", "PUT", "HEAD", "OPTIONS"),
  path: fc.constantFrom(...paths),
  words: fc.array(word, { minLength: 2, maxLength: 2 }),
  query: fc.dictionary(fc.constantFrom("limit", "before", "state", "client", "x"), word),
  body,
  type: fc.constantFrom("application/json", "text/plain", "multipart/form-data"),
});

test(`${requestCount} requests without a 500 (${seedName})`, async () => {
  await using server = await startTestServer({ flags: { "max-queue": "4" }, stepMs: 0 });
  const bad: unknown[] = [];
  await fc.assert(
    fc.asyncProperty(asked, async ({ method, path, words, query, body: given, type }) => {
      const [first = "", second = ""] = words.map((each) =>
        encodeURIComponent(each.toWellFormed()),
      );
      const filled = path.replace(/\{\w+\}/, first).replace(/\{\w+\}/, second);
      const search = new URLSearchParams(query as Record<string, string>);
      const hasBody = method !== "GET" && method !== "HEAD";
      const init = { method, headers: { "Content-Type": type, Host: "localhost" } };
      const url = `http://localhost${filled}?${search}`;
      const response = await server.answer(
        new Request(url, hasBody ? { ...init, body: given as string } : init),
      );
      await response.arrayBuffer();
      // "not ready" is an answer.
      if (response.status >= 500 && path !== "/ready") bad.push({ method, filled, given });
      if (method === "POST" && path === "/api/v1/jobs") {
        await server.answer(post("/api/v1/cancel", { what: "all" }));
      }
    }),
    { numRuns: requestCount, seed },
  );
  expect(bad).toEqual([]);
  const { id } = await server.submit({ width: 32, height: 32, num_inference_steps: 1 });
  expect((await server.ended(id)).state).toBe("done");
}, 60_000);

// --- internal ---

function post(path: string, given: unknown): Request {
  return new Request(`http://localhost${path}`, {
    ...{ method: "POST", body: JSON.stringify(given) },
    headers: { "Content-Type": "application/json", Host: "localhost" },
  });
}
