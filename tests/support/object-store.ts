/**
 * A store of objects for tests: a server that knows PUT, GET and HEAD, and no signatures.
 */

/** What was put, by path. */
export function startStore() {
  const objects = new Map<string, Uint8Array>();
  const server = Bun.serve({
    port: 0,
    async fetch(request) {
      const { pathname } = new URL(request.url);
      if (request.method === "PUT") {
        objects.set(pathname, await request.bytes());
        return new Response(null, { headers: { ETag: '"1"' } });
      }
      const found = objects.get(pathname) as Uint8Array<ArrayBuffer> | undefined;
      if (found === undefined) return new Response(null, { status: 404 });
      return new Response(found, { headers: { ETag: '"1"' } });
    },
  });
  const environment = {
    ...{ AWS_ACCESS_KEY_ID: "id", AWS_SECRET_ACCESS_KEY: "secret", AWS_REGION: "here" },
    AWS_ENDPOINT: String(server.url).replace(/\/$/, ""),
  };
  return { objects, environment, [Symbol.dispose]: () => server.stop(true) };
}
