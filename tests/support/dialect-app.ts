/**
 * The dialects' routes over fake jobs, called without a socket.
 */
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Hono } from "hono";
import { dialectErrorResponse, dialectRoutes } from "../../src/serve/dialects.ts";
import type { ServeEnv } from "../../src/serve/environment.ts";
import { FakeJobs, fakeCapabilities } from "./fake-jobs.ts";

/** `folder` is made by what is uploaded. */
export function dialectApp() {
  const jobs = new FakeJobs();
  const app = new Hono<ServeEnv>();
  app.onError(dialectErrorResponse);
  app.use(async (c, next) => {
    c.set("client", c.req.header("X-Client") ?? "test");
    await next();
  });
  const folder = join(tmpdir(), `basedxl-dialect-app-${crypto.randomUUID()}`);
  const services = { jobs, capabilities: fakeCapabilities(), upscaling: null, folder };
  app.route("/", dialectRoutes(services));
  const post = async (path: string, body: unknown) => {
    const text = typeof body === "string" ? body : JSON.stringify(body);
    return await app.request(path, { method: "POST", body: text });
  };
  const get = async (path: string) => await app.request(path);
  return { jobs, app, post, get, folder };
}

type Json = Record<string, unknown>;

/** The answer of the routes over fake jobs to a body, and the job that it made. */
export async function sent(path: string, body: unknown) {
  const { post, jobs } = dialectApp();
  const response = await post(path, body);
  const answer = (await response.json()) as Json;
  return { status: response.status, answer, spec: jobs.submitted[0] };
}

export const keysOf = (value: unknown) => Object.keys(value as object).sort();
/** The words of a text, sorted. */
export const words = (text: string) => text.trim().split(/\s+/).sort();
