/**
 * Runs before `bun test`, after the set-up (bunfig.toml): writes the golden model's weights, which
 * git does not hold, where tests and scripts open them.
 */
import { writeGoldenModel } from "../../src/bench/support/golden-model.ts";

writeGoldenModel();
