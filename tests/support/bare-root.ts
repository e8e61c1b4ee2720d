/**
 * A system with nothing but glibc: its libraries at their own places below a folder, and a command
 * that runs there by chroot, with /proc and /dev as every container has them. For root alone.
 */
import { copyFileSync, mkdirSync } from "node:fs";
import { dirname, join } from "node:path";

/** Makes the system at `root` for `binary`, copied to its top. */
export function makeBareRoot(root: string, binary: string): void {
  for (const folder of ["proc", "dev", "tmp", "out"]) mkdirSync(join(root, folder));
  const listed = Bun.spawnSync(["ldd", binary]).stdout.toString();
  for (const [path] of listed.matchAll(/\/\S+\.so\S*/g)) {
    mkdirSync(join(root, dirname(path)), { recursive: true });
    copyFileSync(path, join(root, path));
  }
  copyFileSync(binary, join(root, "basedxl"));
}

/** The command that runs /basedxl with `args` there, without an environment. */
export function inBareRoot(root: string, ...args: string[]): string[] {
  const script = `mount -t proc proc "$1/proc" && mount --rbind /dev "$1/dev" || exit 90
    root=$1; shift; exec chroot "$root" /basedxl "$@"`;
  return ["unshare", "-m", "sh", "-c", script, "sh", root, ...args];
}

/** Why there can be no such system here, or null when there can. */
export function noBareRootReason(): string | null {
  if (process.platform !== "linux") return "it is made of glibc";
  if (process.getuid?.() !== 0) return "only root may use chroot";
  for (const tool of ["ldd", "unshare", "chroot"]) {
    if (Bun.which(tool) === null) return `there is no ${tool} command`;
  }
  const { exitCode, stderr } = Bun.spawnSync([
    "unshare",
    "-m",
    "mount",
    "-t",
    "proc",
    "p",
    "/proc",
  ]);
  return exitCode === 0 ? null : `mounting failed: ${stderr.toString().trim()}`;
}
