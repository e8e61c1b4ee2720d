/**
 * The OpenAPI document names every route of the own API and no other.
 */
import { expect, test } from "bun:test";
import { openApiDocument } from "../../src/serve/openapi.ts";
import { fieldKeys } from "../../src/settings/request-schema.ts";
import { asField } from "../../src/settings/values.ts";

const document = openApiDocument();

test("requests have every setting, with its range", () => {
  const { properties } = document.components.schemas.Request;
  expect(Object.keys(properties)).toEqual(fieldKeys.map(asField));
  expect(properties.width).toMatchObject({ type: "integer", minimum: 1, maximum: 8192 });
  expect(properties.sync_mode).toMatchObject({ type: "string" });
});

test("a job's body refers to them", () => {
  const post = document.paths["/api/v1/jobs"]?.post;
  expect(JSON.stringify(post)).toContain('"$ref":"#/components/schemas/Request"');
  expect(JSON.stringify(document)).not.toContain("undefined");
});

test("a job can be a form too, with files beside its part in JSON", () => {
  const post = document.paths["/api/v1/jobs"]?.post as {
    requestBody: {
      content: Record<string, { schema: { properties: object; required: string[] } }>;
    };
  };
  const form = post.requestBody.content["multipart/form-data"]!;
  const files = ["image", "mask", "control_image", "ip_image"];
  expect(Object.keys(form.schema.properties)).toEqual(["job", ...files]);
  expect(form).toMatchObject({
    schema: { required: ["job"], properties: { image: { contentMediaType: "image/*" } } },
    encoding: { job: { contentType: "application/json" } },
  });
});
