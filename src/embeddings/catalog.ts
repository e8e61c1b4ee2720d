/**
 * The names of embeddings that prompts may mention: those that a request names, those that its
 * LoRAs bring along, and those in the folders of embeddings. No file is opened here.
 */
import { BasedXLError, escaped } from "../errors.ts";
import { suggestion } from "../terminal/flags.ts";
import { type EmbeddingSource, embeddingFile } from "./file.ts";
import { mentionSplitter, type Part } from "./words.ts";

interface Entry {
  source: EmbeddingSource;
  /** Whether the user has named it, and means it by its bare word. */
  given: boolean;
}

/** ComfyUI's prompts may have them behind a name. */
const endings = [".safetensors", ".sft", ".pt", ".bin"];

export class EmbeddingCatalog {
  private readonly entries = new Map<string, Entry>();
  private readonly splitter: (text: string) => Part[];

  /** The first of two with the same name counts. `folderFiles`: paths by names in lower case. */
  constructor(
    given: readonly EmbeddingSource[],
    folderFiles: ReadonlyMap<string, string> = new Map(),
  ) {
    for (const source of given) this.add(source.name, { source, given: true });
    for (const [name, path] of folderFiles) {
      this.add(name, { source: embeddingFile(name, path), given: false });
    }
    const names = [...this.entries.keys()];
    // A name with its sub-folder is no word.
    const words = names.filter((name) => !name.includes("/"));
    const files = names.flatMap((name) => [name, ...endings.map((end) => name + end)]);
    this.splitter = mentionSplitter(words, files);
  }

  /** Cuts mentions out of a prompt. */
  split(text: string): Part[] {
    return this.splitter(text);
  }

  /** The embedding of a mention. Throws "bad-option" where there is none of the name. */
  find(name: string): Entry {
    const wanted = name.normalize("NFC").toLowerCase().replaceAll("\\", "/");
    const end = endings.find((each) => wanted.endsWith(each)) ?? "";
    const stem = wanted.slice(0, wanted.length - end.length);
    const entry = this.entries.get(wanted) ?? this.entries.get(stem);
    if (entry !== undefined) return entry;
    const near = suggestion(wanted, this.entries.keys());
    throw new BasedXLError(
      "bad-option",
      `The prompt asks for the embedding ${JSON.stringify(escaped(name, 100))}, which is neither ` +
        `named by --embedding nor in a folder of embeddings.${near}`,
    );
  }

  // --- internal ---

  private add(name: string, entry: Entry): void {
    const key = name.normalize("NFC").toLowerCase();
    if (!this.entries.has(key)) this.entries.set(key, entry);
  }
}
