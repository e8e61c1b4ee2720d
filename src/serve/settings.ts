/**
 * The settings of the server, one row each: flags, environment, the TOML file and help follow from
 * them. The settings of the pipeline are those of `settings/table.ts`, with a list of models.
 */
import { imageFormats } from "../image/encoder.ts";
import { imageCountMax } from "../native/abi.ts";
import type { AnySetting, Given, ItemKind } from "../settings/setting.ts";
import { type GivenSettings, type KeysWhere, settingKeys, settings } from "../settings/table.ts";

/** An entry that is any text but an empty one. */
const textItem: ItemKind<string> = {
  read: (text) => text,
  fromJson: (value) => value,
  accepts: (value): value is string => typeof value === "string" && value.trim() !== "",
  format: (text) => text,
  demand: "be a text",
};

const modelItem: ItemKind<string> = {
  ...textItem,
  demand: "be a model: a path, a name or an id of the Hugging Face hub",
};

const hostItem: ItemKind<string> = {
  ...textItem,
  accepts: (value): value is string => typeof value === "string" && /^[\w.:[\]-]+$/.test(value),
  demand: "be the name of a host, such as images.example.org",
};

const originItem: ItemKind<string> = {
  ...textItem,
  accepts: (value): value is string =>
    typeof value === "string" && URL.parse(value)?.origin === value && value !== "null",
  demand: "be an origin, such as https://images.example.org",
};

/** A key, and by which name its owner appears in jobs and logs. */
export interface ApiKey {
  name: string;
  key: string;
}

const keyLengthMin = 16;

const keyItem: ItemKind<ApiKey> = {
  read(text) {
    const [, name, key] = /^([\w.@-]{1,64})=(.+)$/s.exec(text) ?? [];
    return name !== undefined ? { name, key: key! } : { name: "default", key: text };
  },
  fromJson(value) {
    return typeof value === "string" ? this.read(value) : value;
  },
  accepts(value): value is ApiKey {
    const { key } = (value ?? {}) as Partial<ApiKey>;
    return typeof key === "string" && key.length >= keyLengthMin && /^[\x21-\x7e]+$/.test(key);
  },
  format: ({ name }) => `${name}=...`,
  demand: `be KEY or NAME=KEY, a key of ${keyLengthMin} visible ASCII characters or more`,
};

const own = {
  host: {
    kind: "text",
    flag: "host",
    default: "127.0.0.1",
    group: "Server",
    hint: "HOST",
    help:
      "The address to listen on; any but this machine's own (127.0.0.1, ::1) needs --api-key. " +
      "Default: 127.0.0.1.",
  },
  port: {
    kind: "whole",
    flag: "port",
    min: 0,
    max: 65535,
    default: 7860,
    group: "Server",
    hint: "N",
    help: "The port, {range}; 0 is a free one, which is printed. Default: 7860.",
  },
  configFile: {
    kind: "path",
    flag: "config-file",
    names: "file",
    extension: ".toml",
    group: "Server",
    hint: "FILE",
    help:
      "A TOML file with these settings, named as the flags with _ for -. Flags go before " +
      "variables of the environment, and these before the file. Default: none.",
  },
  outputs: {
    kind: "path",
    flag: "outputs",
    names: "folder",
    default: "outputs",
    group: "Server",
    hint: "FOLDER",
    help:
      "Where images are written, each with its parameters, and where jobs are kept; made if it " +
      "is not there. Default: outputs.",
  },
  format: {
    kind: "choice",
    flag: "format",
    names: imageFormats,
    default: "png",
    group: "Server",
    hint: "NAME",
    help: "Of images whose job names none: {names}. Default: png.",
  },
  metadata: {
    kind: "boolean",
    flag: "metadata",
    default: true,
    group: "Server",
    help: "Write no parameters into images. Default: they carry them, as those of sample.",
  },
  models: {
    kind: "list",
    of: modelItem,
    flag: "model",
    models: "checkpoint",
    max: 64,
    default: [],
    group: "Models and devices",
    hint: "PATH",
    help:
      "A model that jobs may name, as of sample; several by giving the flag several times, the " +
      "first is the default. Default: the variable BASEDXL_MODEL, else the bundled mini-sdxl.",
  },
  maxModels: {
    kind: "whole",
    flag: "max-models",
    min: 1,
    max: 64,
    default: 1,
    group: "Models and devices",
    hint: "N",
    help:
      "Models that stay loaded, {range}: another one takes the place of that which was used " +
      "least recently, also where memory does not suffice. Default: 1.",
  },
  share: {
    kind: "text",
    flag: "share",
    default: "auto",
    group: "Models and devices",
    hint: "RxP",
    help:
      "How the ranks of --gpus share the work: RxP is P images side by side with R ranks each " +
      "(4 or 4x1 all on one image, 2x2, 1x4), auto by the length of the queue. Default: auto.",
  },
  maxQueue: {
    kind: "whole",
    flag: "max-queue",
    min: 1,
    max: 10_000,
    default: 64,
    group: "Queue",
    hint: "N",
    help: "Jobs that may wait, {range}; the next ones are refused with 429. Default: 64.",
  },
  maxImages: {
    kind: "whole",
    flag: "max-images",
    min: 1,
    max: imageCountMax,
    default: imageCountMax,
    group: "Queue",
    hint: "N",
    help: `The most images of a job, {range}. Default: ${imageCountMax}.`,
  },
  maxPixels: {
    kind: "number",
    flag: "max-megapixels",
    min: 0.01,
    max: 67.2,
    default: 67.2,
    group: "Queue",
    hint: "X",
    help: "The largest image, {range} million pixels. Default: 67.2.",
  },
  maxAttempts: {
    kind: "whole",
    flag: "max-attempts",
    min: 1,
    max: 100,
    default: 3,
    group: "Queue",
    hint: "N",
    help:
      "How often a job is started that ends with the process or its devices, {range}; then it " +
      "has failed. Default: 3.",
  },
  batchJobs: {
    kind: "whole",
    flag: "batch-jobs",
    min: 1,
    max: 8,
    default: 1,
    group: "Queue",
    hint: "N",
    help:
      "Waiting jobs that differ in prompt, guidance and seed alone and are computed together, " +
      "{range}: more images per hour, but the first of them waits for the last. Default: 1.",
  },
  keepJobs: {
    kind: "whole",
    flag: "keep-jobs",
    min: 1,
    max: 1_000_000,
    default: 10_000,
    group: "Queue",
    hint: "N",
    help: "Jobs that are remembered after their end, {range}; images stay. Default: 10000.",
  },
  queue: {
    kind: "text",
    flag: "queue",
    group: "Workers",
    hint: "URL",
    help:
      "Jobs go to the workers at this Redis or Valkey, redis://HOST:PORT or rediss://..., and " +
      "the server itself generates nothing. Others can read flags: give a password by " +
      "BASEDXL_SERVE_QUEUE. Default: none, the server generates.",
  },
  store: {
    kind: "text",
    flag: "store",
    group: "Workers",
    hint: "URL",
    help:
      "An S3-compatible store, s3://BUCKET/PREFIX, through which workers send images; its keys " +
      "are AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION, AWS_ENDPOINT. Default: none, " +
      "--outputs is a folder that all share.",
  },
  workerTimeout: {
    kind: "whole",
    flag: "worker-timeout",
    min: 1,
    max: 3600,
    default: 15,
    group: "Workers",
    hint: "S",
    help:
      "Seconds, {range}, after which the job of a worker that is not heard of goes to another " +
      "one. Default: 15.",
  },
  apiKeys: {
    kind: "list",
    of: keyItem,
    flag: "api-key",
    max: 1000,
    default: [],
    group: "Access",
    hint: "[NAME=]KEY",
    help:
      "A key that requests must bring (Authorization: Bearer KEY); several by giving the flag " +
      "several times. Others of the machine can read flags: prefer BASEDXL_SERVE_API_KEY or " +
      "the file. Default: none, for this machine alone.",
  },
  allowHosts: {
    kind: "list",
    of: hostItem,
    flag: "allow-host",
    max: 100,
    default: [],
    group: "Access",
    hint: "NAME",
    help:
      "Another name by which the server is reached, such as that of a reverse proxy; several by " +
      "giving the flag several times. Default: the name of --host and of this machine's loopback.",
  },
  allowOrigins: {
    kind: "list",
    of: originItem,
    flag: "allow-origin",
    max: 100,
    default: [],
    group: "Access",
    hint: "ORIGIN",
    help:
      "Another site whose pages may call the server (CORS), such as https://app.example.org; " +
      "several by giving the flag several times. Default: none.",
  },
  maxBody: {
    kind: "whole",
    flag: "max-body",
    min: 1,
    max: 1024,
    default: 64,
    group: "Access",
    hint: "MIB",
    help: "The largest body of a request, {range} MiB. Default: 64.",
  },
  logFormat: {
    kind: "choice",
    flag: "log-format",
    names: ["auto", "text", "json"],
    default: "auto",
    group: "Output",
    hint: "NAME",
    help: "Of the log on stderr: text, json (a line each), or auto: text on a terminal.",
  },
  verbose: {
    kind: "boolean",
    flag: "verbose",
    default: false,
    group: "Output",
    help: "Also log every request.",
  },
} as const satisfies Readonly<Record<string, AnySetting>>;

type PipelineKey = Exclude<KeysWhere<{ scope: "pipeline" }>, "model">;

const pipelineKeys = settingKeys.filter(
  (key): key is PipelineKey => settings[key].scope === "pipeline" && key !== "model",
);

/** All rows by their keys in `ServeConfig`. */
export const serveSettings: Readonly<Record<string, AnySetting>> = {
  ...own,
  ...Object.fromEntries(
    pipelineKeys.map((key) => [key, { ...settings[key], group: "Models and devices" }]),
  ),
};

/** Everything that the server can be told. */
export type ServeConfig = {
  [Key in keyof typeof own]: Given<(typeof own)[Key]>;
} & GivenSettings<PipelineKey>;

/** Headings of `--help`, in this order. */
export const serveGroups = [
  "Server",
  "Models and devices",
  "Queue",
  "Workers",
  "Access",
  "Output",
] as const;
