/**
 * `basedxl pull ID`: fetches a model of the hub and prints where it is.
 */
import { defineCommand } from "citty";
import { BasedXLError, escaped } from "../errors.ts";
import { hubEndpoint } from "../hub/settings.ts";
import { type HubReference, hubReference, openHubModel } from "../hub.ts";
import { createOutput, type Output, writeJson } from "../terminal/output.ts";
import { pullFlags } from "./pull-flags.ts";
import { runStoppable } from "./stoppable.ts";

/** Resolves to the exit code; errors that are not a stop by signal are thrown on. */
export const pullCommand = defineCommand({
  meta: { name: "pull", description: "Fetch a model of the Hugging Face hub" },
  args: pullFlags,
  async run({ args }) {
    const { quiet = false, json = false, verbose = false } = args;
    const output = createOutput({ quiet, json, verbose });
    const reference = referenceOf(args.id);
    return await runStoppable(output, async (signal) => {
      try {
        await pull(reference, output, signal);
      } catch (error) {
        // What was fetched stays: unlike other commands, it is worth a sentence.
        if (signal.aborted) output.log.info((error as Error).message);
        throw error;
      }
    });
  },
});

// --- internal ---

function referenceOf(id: string | undefined): HubReference {
  const write = "write org/name, org/name@revision or org/name:file.safetensors";
  if (id === undefined) throw new BasedXLError("bad-option", `Name a model of the hub: ${write}.`);
  const reference = hubReference(id, hubEndpoint());
  if (reference !== null) return reference;
  throw new BasedXLError("bad-option", `"${escaped(id, 300)}" is no model of the hub: ${write}.`);
}

async function pull(reference: HubReference, output: Output, signal: AbortSignal): Promise<void> {
  const { log, progress, showsProgress, verbosity } = output;
  const opened = await openHubModel(reference, {
    signal,
    refresh: true,
    onLine: (line) => log.info(line),
    onDownload: (state) => {
      if (showsProgress) progress.download(state);
    },
  });
  progress.clear();
  const { path, commit, files, bytes, fetchedBytes, isFresh } = opened;
  if (!verbosity.json) return void process.stdout.write(`${path}\n`);
  writeJson({
    path,
    id: reference.id,
    revision: reference.revision ?? "main",
    commit,
    files,
    bytes,
    fetched_bytes: fetchedBytes,
    asked_hub: isFresh,
  });
}
