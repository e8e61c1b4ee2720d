/**
 * Runs before `bun test`, after the set-up (bunfig.toml): writes the golden model's weights, which
 * git does not hold, where tests and scripts open them, and keeps tests off the network.
 */
import { writeGoldenModel } from "../../src/bench/support/golden-model.ts";

writeGoldenModel();

// No test asks the real hub: one of an unlucky name would fetch gigabytes.
process.env.HF_HUB_OFFLINE = "1";
