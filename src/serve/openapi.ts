/**
 * The OpenAPI document of the own API, made from the schemas that check requests, and a plain page
 * of it. A route that is missing here fails a test.
 */
import { toJsonSchema } from "@valibot/to-json-schema";
import { Hono } from "hono";
import { html, raw } from "hono/html";
import type * as v from "valibot";
import { resources } from "../resources.ts";
import { helpTextOf } from "../settings/flags.ts";
import { fieldKeys, requestSchema } from "../settings/request-schema.ts";
import type { AnySetting } from "../settings/setting.ts";
import { settingOf } from "../settings/table.ts";
import { asField } from "../settings/values.ts";
import type { ServeEnv } from "./environment.ts";
import { type Operation, operations } from "./operations.ts";

/** `/openapi.json` and `/docs`. */
export function documentRoutes() {
  const app = new Hono<ServeEnv>();
  let document: ReturnType<typeof openApiDocument> | null = null;
  app.get("/openapi.json", (c) => {
    document ??= openApiDocument();
    return c.json(document);
  });
  app.get("/docs", (c) => c.html(documentPage()));
  app.get("/docs/style.css", (c) => c.body(style, 200, { "Content-Type": "text/css" }));
  return app;
}

/** OpenAPI 3.1. */
export function openApiDocument() {
  const paths: Record<string, Record<string, unknown>> = {};
  for (const operation of operations) {
    const path = operation.path.replaceAll(/:(\w+)/g, "{$1}");
    paths[path] ??= {};
    paths[path][operation.method] = described(operation);
  }
  return {
    openapi: "3.1.0",
    info: {
      title: "BasedXL",
      version: resources.versions().basedxl,
      description: "Images of Stable Diffusion XL as jobs with events.",
    },
    paths,
    components: {
      schemas: { Request: requestJsonSchema() },
      securitySchemes: { key: { type: "http", scheme: "bearer" } },
    },
    security: [{ key: [] }, {}],
  };
}

// --- internal ---

function described(operation: Operation) {
  const { summary, path, query, body, answer, answerType, status = 200 } = operation;
  const names = [...path.matchAll(/:(\w+)/g)].map(([, name = ""]) => name);
  const inPath = names.map((name) => {
    return { name, in: "path", required: true, schema: { type: "string" } };
  });
  const content = answer === undefined ? answerType : "application/json";
  const schema = answer && jsonSchema(answer, "output");
  return {
    summary,
    parameters: [...inPath, ...(query === undefined ? [] : queryParameters(query))],
    ...(body !== undefined && { requestBody: bodyOf(body, operation.form) }),
    responses: {
      [status]: {
        description: summary,
        ...(content !== undefined && { content: { [content]: { ...(schema && { schema }) } } }),
      },
      default: {
        description: "An error: { error: { code, message } }.",
        content: { "application/json": { schema: errorJsonSchema } },
      },
    },
  };
}

function bodyOf(body: NonNullable<Operation["body"]>, form: Operation["form"]) {
  if (body === "bytes") return { required: true, content: { "application/octet-stream": {} } };
  const json = { "application/json": { schema: jsonSchema(body, "input") } };
  const parts = form && { "multipart/form-data": formBody(form) };
  return { required: true, content: { ...json, ...parts } };
}

function formBody({ json, files }: NonNullable<Operation["form"]>) {
  const schemas = Object.entries(json).map(([name, part]) => [name, jsonSchema(part, "input")]);
  const ofFiles = Object.entries(files).map(([name, description]) => {
    return [name, { type: "string", contentMediaType: "image/*", description }];
  });
  const encodings = Object.keys(json).map((name) => [name, { contentType: "application/json" }]);
  return {
    schema: {
      type: "object",
      properties: Object.fromEntries([...schemas, ...ofFiles]),
      required: Object.keys(json),
    },
    encoding: Object.fromEntries(encodings),
  };
}

function queryParameters(query: v.GenericSchema) {
  const { properties = {} } = jsonSchema(query, "input");
  return Object.entries(properties).map(([name, schema]) => {
    return { name, in: "query", required: false, schema };
  });
}

const errorJsonSchema = {
  type: "object",
  properties: {
    error: {
      type: "object",
      properties: { code: { type: "string" }, message: { type: "string" } },
      required: ["code", "message"],
    },
  },
};

interface JsonSchema {
  [keyword: string]: unknown;
  properties?: Record<string, unknown>;
}

function jsonSchema(schema: v.GenericSchema, typeMode: "input" | "output"): JsonSchema {
  const {
    $schema: _,
    $defs: __,
    ...rest
  } = toJsonSchema(schema, {
    typeMode,
    errorMode: "ignore",
    definitions: { Request: requestSchema },
    overrideRef: ({ referenceId }) => `#/components/schemas/${referenceId}`,
  });
  return rest as JsonSchema;
}

/** By the table of settings, which the schema of requests reads too. */
function requestJsonSchema() {
  const properties = fieldKeys.map((key) => [asField(key), settingJsonSchema(settingOf(key))]);
  return {
    type: "object",
    properties: Object.fromEntries(properties),
    additionalProperties: false,
  };
}

function settingJsonSchema(setting: AnySetting): JsonSchema {
  return { description: helpTextOf(setting).replaceAll("\n", " "), ...valueJsonSchema(setting) };
}

function valueJsonSchema(setting: AnySetting): JsonSchema {
  const list = { type: "array", items: { type: "number" } };
  switch (setting.kind) {
    case "whole":
    case "number": {
      const { min: minimum, max: maximum } = setting;
      const type = setting.kind === "whole" ? "integer" : "number";
      const number = { type, minimum, maximum };
      const hasAuto = setting.kind === "whole" && setting.orAuto;
      return hasAuto ? { anyOf: [number, { const: "auto" }] } : number;
    }
    case "numbers":
      return list;
    case "choice": {
      const text = setting.alsoAccepts
        ? { type: "string", examples: [...setting.names] }
        : { type: "string", enum: [...setting.names] };
      return setting.orNumbers ? { anyOf: [text, list] } : text;
    }
    case "seed":
      return {
        anyOf: [
          { type: "integer", minimum: 0 },
          { type: "string", pattern: "^\\d+$" },
        ],
      };
    case "boolean":
      return { type: "boolean" };
    case "list":
      return { type: "array", items: { type: ["string", "object"] }, maxItems: setting.max };
    default:
      return { type: "string" };
  }
}

/** Plain HTML without scripts: what there is to ask, and with which settings. */
function documentPage() {
  const settings = fieldKeys.map((key) => ({
    name: asField(key),
    help: helpTextOf(settingOf(key)),
  }));
  return html`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>BasedXL: API</title>
<link rel="stylesheet" href="/docs/style.css">
</head>
<body>
<main>
<h1>BasedXL: API</h1>
<p>Made from <a href="/openapi.json">/openapi.json</a>. Errors are
<code>{ "error": { "code", "message" } }</code>. With keys:
<code>Authorization: Bearer KEY</code>.</p>
${operations.map(
  ({ method, path, summary, query, body, form }) => html`<section>
<h2><b>${method.toUpperCase()}</b> <code>${path}</code></h2>
<p>${summary}</p>
${fieldTable("Query", query)}
${body === "bytes" ? html`<p>Body: bytes.</p>` : fieldTable("Body", body)}
${form === undefined ? raw("") : formTable(form)}
</section>`,
)}
<section>
<h2 id="request">Fields of <code>request</code></h2>
<table>
${settings.map(({ name, help }) => {
  return html`<tr><th><code>${name}</code></th><td>${help}</td></tr>`;
})}
</table>
</section>
</main>
</body>
</html>`;
}

function fieldTable(title: string, schema: v.GenericSchema | undefined) {
  if (schema === undefined) return raw("");
  const rows = Object.entries(jsonSchema(schema, "input").properties ?? {}).map(([name, value]) => {
    const { description = "", $ref } = value as { description?: string; $ref?: string };
    const link = $ref === undefined ? "" : html` <a href="#request">its fields</a>`;
    return html`<tr><th><code>${name}</code></th><td>${description}${link}</td></tr>`;
  });
  return html`<p>${title}</p><table>${rows}</table>`;
}

/** Parts in JSON have the fields of the body. */
function formTable({ json, files }: NonNullable<Operation["form"]>) {
  const ofJson = Object.keys(json).map((name) => [name, "The other fields of the body, in JSON."]);
  const rows = [...ofJson, ...Object.entries(files)].map(([name, about]) => {
    return html`<tr><th><code>${name}</code></th><td>${about}</td></tr>`;
  });
  return html`<p>Or a form of several parts</p><table>${rows}</table>`;
}

const style = `:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
body { margin: 0; }
main { max-width: 60rem; margin: 0 auto; padding: 1rem; }
h2 { font-size: 1.05rem; margin: 2rem 0 0.25rem; }
h2 b { color: #2b6cb0; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: 0.25rem 0.75rem 0.25rem 0; }
th { font-weight: 400; white-space: nowrap; }
code { font-family: ui-monospace, monospace; }
`;
