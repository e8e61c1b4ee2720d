/**
 * A system with nothing but glibc and a few programs: their libraries at their own places below a
 * folder, and a command that runs there by chroot, with /proc and /dev as every container has them.
 * For root alone.
 */
import { copyFileSync, mkdirSync } from "node:fs";
import { dirname, join } from "node:path";

/** Makes the system at `root` for `binary`, copied to its top as `basedxl`. */
export function makeBareRoot(root: string, binary: string): void {
  for (const folder of ["proc", "dev", "tmp", "out", "bin"]) mkdirSync(join(root, folder));
  addLibrary(root, binary, "basedxl");
}

/** Copies the programs `names` of this system's PATH to /bin of the system at `root`. */
export function addPrograms(root: string, names: readonly string[]): void {
  for (const name of names) addLibrary(root, Bun.which(name) ?? name, join("bin", name));
}

/** Copies a library or program with the libraries that it needs. */
export function addLibrary(root: string, path: string, target: string): void {
  const listed = Bun.spawnSync(["ldd", path]).stdout.toString();
  for (const [library] of listed.matchAll(/\/\S+\.so\S*/g)) {
    mkdirSync(join(root, dirname(library)), { recursive: true });
    copyFileSync(library, join(root, library));
  }
  copyFileSync(path, join(root, target));
}

/** The command that runs /basedxl with `args` there, without an environment. */
export function inBareRoot(root: string, ...args: string[]): string[] {
  return runIn(root, ["/basedxl", ...args]);
}

/** The command that runs `command` there, in the environment that the caller gives it. */
export function runIn(root: string, command: readonly string[]): string[] {
  const script = `mount -t proc proc "$1/proc" && mount --rbind /dev "$1/dev" || exit 90
    root=$1; shift; exec chroot "$root" "$@"`;
  return ["unshare", "-m", "sh", "-c", script, "sh", root, ...command];
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
