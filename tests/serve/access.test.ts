/**
 * Who may ask what: keys, names, origins, paths, sizes.
 */
import { describe, expect, test } from "bun:test";
import { startTestServer } from "../support/serve-fixture.ts";

const key = "0123456789abcdef";

async function codeOf(response: Response): Promise<string> {
  return ((await response.json()) as { error: { code: string } }).error.code;
}

test("other names and other sites are refused", async () => {
  await using server = await startTestServer({
    flags: { "allow-host": "images.example.org", "allow-origin": "https://app.example.org" },
  });
  const get = (headers: Record<string, string>) => server.fetch("/api/v1/jobs", { headers });
  const port = new URL(server.url).port;
  expect(await codeOf(await get({ Host: "evil.example.org" }))).toBe("wrong-host");
  expect(await codeOf(await get({ Host: "127.0.0.1.evil.example.org" }))).toBe("wrong-host");
  expect((await get({ Host: "images.example.org" })).status).toBe(200);
  expect((await get({ Host: "localhost:1234" })).status).toBe(200);
  expect(await codeOf(await get({ Origin: "https://evil.example.org" }))).toBe("wrong-origin");
  expect(await codeOf(await get({ Origin: "null" }))).toBe("wrong-origin");
  expect((await get({ Origin: `http://127.0.0.1:${port}` })).status).toBe(200);
  const allowed = await get({ Origin: "https://app.example.org" });
  expect(allowed.headers.get("Access-Control-Allow-Origin")).toBe("https://app.example.org");
});

describe("with keys", () => {
  test("a request brings one; the page and health need none", async () => {
    await using server = await startTestServer({ flags: { "api-key": `anna=${key}` } });
    const get = (path: string, headers = {}) => server.fetch(path, { headers });
    expect(await codeOf(await get("/api/v1/jobs"))).toBe("no-key");
    expect((await get("/api/v1/jobs", { Authorization: "Bearer wrong" })).status).toBe(401);
    expect((await get("/health")).status).toBe(200);
    expect((await get("/openapi.json")).status).toBe(200);
    for (const path of ["/metrics", "/api/v1/capabilities", "/api/v1/images", "/v1/models"]) {
      expect((await get(path)).status).toBe(401);
    }
    const bearer = { Authorization: `Bearer ${key}` };
    const basic = { Authorization: `Basic ${btoa(`any:${key}`)}` };
    for (const headers of [bearer, basic]) {
      expect((await get("/api/v1/jobs", headers)).status).toBe(200);
    }
    const request = { width: 32, height: 32, num_inference_steps: 1 };
    const job = await server.post("/api/v1/jobs", { request }, bearer);
    expect(await job.json()).toMatchObject({ spec: { client: "anna" } });
  });

  test("a browser logs in with one, by a cookie that does not hold it", async () => {
    await using server = await startTestServer({ flags: { "api-key": `anna=${key}` } });
    expect((await server.post("/api/v1/login", { key: "wrong" })).status).toBe(401);
    const login = await server.post("/api/v1/login", { key });
    expect(login.status).toBe(204);
    const cookie = login.headers.get("Set-Cookie") ?? "";
    expect(cookie).toContain("HttpOnly");
    expect(cookie).toContain("SameSite=Strict");
    expect(cookie).not.toContain(key);
    const [pair = ""] = cookie.split(";");
    const get = (value: string) => server.fetch("/api/v1/jobs", { headers: { Cookie: value } });
    expect((await get(pair)).status).toBe(200);
    expect((await get(`${pair}0`)).status).toBe(401);
    expect((await get("basedxl_login=")).status).toBe(401);
  });
});

test("no path leaves the folder of outputs", async () => {
  await using server = await startTestServer();
  const names = [
    ...["..%2F..%2Fetc%2Fpasswd", "%2Fetc%2Fpasswd", ".basedxl-jobs.sqlite", "..", "a%00.png"],
    ...["..%5C..%5Cx.png", "%2e%2e%2f%2e%2e%2fx.png", "x".repeat(300), "none.png"],
  ];
  for (const name of names) {
    for (const path of ["", "/thumbnail", "/metadata"]) {
      const { status } = await server.fetch(`/api/v1/images/${name}${path}`);
      expect([name, [400, 404].includes(status)]).toEqual([name, true]);
    }
    const gone = await server.fetch(`/api/v1/images/${name}`, { method: "DELETE" });
    expect([400, 404, 405].includes(gone.status)).toBe(true);
  }
});

test("large bodies are refused, and every answer has its headers", async () => {
  await using server = await startTestServer({ flags: { "max-body": "1" } });
  const body = new Uint8Array(1.5 * 2 ** 20);
  const large = await server.fetch("/api/v1/metadata", { method: "POST", body });
  expect([large.status, await codeOf(large)]).toEqual([413, "too-large"]);
  for (const path of ["/health", "/docs", "/nowhere", "/api/v1/jobs/x"]) {
    const { headers } = await server.fetch(path);
    expect(headers.get("Content-Security-Policy")).toContain("default-src 'none'");
    expect(headers.get("X-Content-Type-Options")).toBe("nosniff");
  }
});

test("capabilities have an ETag, metrics are text, docs have no script", async () => {
  await using server = await startTestServer();
  const first = await server.fetch("/api/v1/capabilities");
  const etag = first.headers.get("ETag") ?? "";
  const headers = { "If-None-Match": etag };
  expect((await server.fetch("/api/v1/capabilities", { headers })).status).toBe(304);
  expect(await (await server.fetch("/metrics")).text()).toContain("basedxl_queue_length 0");
  expect(await (await server.fetch("/docs")).text()).not.toContain("<script");
});
