/**
 * Installs the packages of bun.lock when they are missing or older than it. The stamp is written
 * last, so an interrupted installation counts as stale.
 */
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { BasedXLError } from "../errors.ts";
import { type Report, runTool } from "./tool.ts";

/** Why the packages below `root` need installing, or null when they match bun.lock. */
export function packagesStaleReason(root: string): string | null {
  const folder = join(root, "node_modules");
  const missing = packageNames(root).filter(
    (name) => !existsSync(join(folder, name, "package.json")),
  );
  if (missing.length > 0) {
    const all = missing.length === packageNames(root).length;
    return all ? "there are none yet" : `${missing.join(", ")} missing`;
  }
  const stampPath = join(folder, stampName);
  if (!existsSync(stampPath)) return "not known to match bun.lock";
  if (readFileSync(stampPath, "utf8") !== stampOf(root)) return "bun.lock changed";
  return null;
}

/** Installs exactly what bun.lock lists. Throws `BasedXLError` "setup" with Bun's own message. */
export async function installPackages(options: {
  root: string;
  reason: string;
  report: Report;
  live: boolean;
}): Promise<void> {
  const { root, reason, report, live } = options;
  // Without a lock file, --frozen-lockfile silently installs the newest versions.
  if (!existsSync(join(root, "bun.lock"))) {
    throw new BasedXLError(
      "setup",
      "bun.lock is missing, so the versions are unknown: `git checkout bun.lock` restores it.",
    );
  }
  report(`Installing packages (${reason})`);
  const startMs = performance.now();
  await runTool({
    command: [process.execPath, "install", "--frozen-lockfile"],
    cwd: root,
    env: process.env,
    failure: "The packages could not be installed",
    live,
  });
  const folder = join(root, "node_modules");
  mkdirSync(folder, { recursive: true });
  // Tracked by git: see the note in .gitignore. It comes back after `rm -rf node_modules`.
  writeFileSync(join(folder, ".gitkeep"), "");
  writeFileSync(join(folder, stampName), stampOf(root));
  report(`Installed packages in ${((performance.now() - startMs) / 1000).toFixed(1)} s`);
}

// --- internal ---

const stampName = ".basedxl-packages";

function packageNames(root: string): string[] {
  const { dependencies, devDependencies } = JSON.parse(
    readFileSync(join(root, "package.json"), "utf8"),
  ) as { dependencies?: object; devDependencies?: object };
  return [...Object.keys(dependencies ?? {}), ...Object.keys(devDependencies ?? {})];
}

function stampOf(root: string): string {
  const hash = new Bun.CryptoHasher("sha256");
  for (const name of ["bun.lock", "package.json"]) {
    const path = join(root, name);
    hash.update(existsSync(path) ? readFileSync(path) : "");
  }
  // Packages contain machine code: a folder copied from another platform is stale.
  return `${hash.digest("hex")} ${process.platform}-${process.arch}\n`;
}
