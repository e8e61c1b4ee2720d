/**
 * `basedxl verify`: does this GPU compute right? The comparison is the library's own, and the tests
 * of the CUDA path run the same checks; here are its flags and its exit code.
 */
import { defineCommand } from "citty";
import { badOption } from "../errors.ts";
import { emulatorPath, prepareDevice } from "../native/library.ts";
import { verifyGpu } from "../native/verify.ts";
import { verifyDevices, verifyFlags } from "./verify-flags.ts";

export const verifyCommand = defineCommand({
  meta: { name: "verify", description: "Say whether this GPU computes right" },
  args: verifyFlags,
  async run({ args }) {
    const device = args.device ?? "cuda";
    if (!(verifyDevices as readonly string[]).includes(device)) {
      throw badOption(`--device must be ${verifyDevices.join(" or ")}, not "${device}".`);
    }
    const seed = seedOf(args.seed);
    await prepareDevice(device, (line) => process.stderr.write(`${line}\n`));
    const options = {
      quick: args.quick ?? false,
      json: args.json ?? false,
      seed,
      only: args.only ?? "",
      emulator: device === "cuda-emulated" ? emulatorPath() : "",
    };
    const agrees = await verifyGpu(options, (text) => process.stdout.write(text));
    return agrees ? 0 : 1;
  },
});

// --- internal ---

function seedOf(text: string | undefined): bigint {
  if (text === undefined) return 1n;
  if (/^\d+$/.test(text) && BigInt(text) < 2n ** 64n) return BigInt(text);
  throw badOption(`--seed must be a whole number, not "${text}".`);
}
