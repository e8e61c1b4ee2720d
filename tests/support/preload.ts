/**
 * Runs before `bun test`, after the set-up (bunfig.toml): writes the golden model's weights, which
 * git does not hold, where tests and scripts open them, keeps tests off the network, and gives
 * random tests the seed that was asked for.
 */
import { writeGoldenModel } from "../../src/bench/support/golden-model.ts";

writeGoldenModel();

// No test asks the real hub: one of an unlucky name would fetch gigabytes.
process.env.HF_HUB_OFFLINE = "1";

// Of seed.ts, also for what fast-check chooses by itself.
if (process.env.BASEDXL_TEST_SEED) {
  const { default: fc } = await import("fast-check");
  const { seed } = await import("./seed.ts");
  fc.configureGlobal({ seed });
}
