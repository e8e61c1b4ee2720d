/**
 * Images in an S3-compatible store, for workers that share no folder with the server. An object
 * appears whole or not at all. Keys and the endpoint come from the environment, as other programs
 * read them: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION, AWS_ENDPOINT.
 */
import { S3Client as Client, type S3Client } from "bun";
import { BasedXLError, badOption, escaped, stopIfAborted } from "../../errors.ts";
import { imageSizeOf } from "../../image/encoder.ts";
import { ImageStore } from "../image-store.ts";

type Environment = Readonly<Record<string, string | undefined>>;

export class ObjectStore extends ImageStore {
  private constructor(
    private readonly client: S3Client,
    private readonly prefix: string,
  ) {
    super();
  }

  /** `s3://bucket/prefix`. Throws "bad-option", also where a key is missing. */
  static open(url: string, environment: Environment = process.env): ObjectStore {
    const [, bucket, prefix = ""] = /^s3:\/\/([\w.-]+)(?:\/(.*))?$/.exec(url) ?? [];
    if (bucket === undefined) {
      throw badOption(`--store must be s3://BUCKET/PREFIX, not ${escaped(url, 200)}.`);
    }
    const folder = prefix.replace(/\/+$/, "");
    const client = new Client({ bucket, ...optionsOf(environment) });
    return new ObjectStore(client, folder === "" ? "" : `${folder}/`);
  }

  async read(file: string): Promise<Uint8Array> {
    return await this.asked(file, () => this.client.file(this.prefix + file).bytes());
  }

  // --- internal ---

  protected async put(file: string, bytes: Uint8Array, type: string, signal: AbortSignal) {
    stopIfAborted(signal);
    await this.asked(file, () => this.client.write(this.prefix + file, bytes, { type }));
  }

  protected async look(file: string) {
    if (!(await this.asked(file, () => this.client.exists(this.prefix + file)))) return null;
    const bytes = await this.read(file);
    const size = await imageSizeOf(bytes);
    return size && { bytes: bytes.length, size };
  }

  private async asked<Answer>(file: string, ask: () => Promise<Answer>): Promise<Answer> {
    try {
      return await ask();
    } catch (error) {
      const why = escaped((error as Error).message, 200);
      throw new BasedXLError("io", `${escaped(file, 100)} in the store of --store: ${why}`);
    }
  }
}

// --- internal ---

function optionsOf(environment: Environment): Bun.S3Options {
  const needed = (name: string) => {
    const value = environment[name];
    if (!value) throw badOption(`--store needs ${name} to be set.`);
    return value;
  };
  const { AWS_REGION: region, AWS_ENDPOINT: endpoint, AWS_SESSION_TOKEN } = environment;
  return {
    accessKeyId: needed("AWS_ACCESS_KEY_ID"),
    secretAccessKey: needed("AWS_SECRET_ACCESS_KEY"),
    ...(AWS_SESSION_TOKEN && { sessionToken: AWS_SESSION_TOKEN }),
    ...(region && { region }),
    ...(endpoint && { endpoint }),
  };
}
