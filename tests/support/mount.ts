/**
 * Small disks for tests: a tmpfs in a private mount namespace, where the system allows one. It is
 * invisible to other processes and disappears when the command ends.
 */
import { mkdirSync } from "node:fs";

export interface Disk {
  /** A folder to mount on; made if it is missing. */
  folder: string;
  /** Of mount -o, such as "size=8m" or "size=64k,noexec". */
  options: string;
}

/** The command that runs `script` (of sh, with `args` as $1 ...) with the disk in place. */
export function onDisk({ folder, options }: Disk, script: string, args: string[]): string[] {
  mkdirSync(folder, { recursive: true });
  const mounting = 'mount -t tmpfs -o "$1" basedxl-test "$2" && shift 2 && eval "$1" && exit $?';
  return [...namespace(), "sh", "-c", mounting, "sh", options, folder, script, ...args];
}

/** Why no disk can be had here, or null when one can. */
export function noDiskReason(folder: string): string | null {
  if (process.platform !== "linux") return "tmpfs is Linux'";
  if (Bun.which("unshare") === null) return "there is no unshare command";
  try {
    const command = onDisk({ folder, options: "size=64k" }, "true", []);
    const { exitCode, stderr } = Bun.spawnSync(command, { stdin: "ignore", stdout: "ignore" });
    return exitCode === 0 ? null : `mounting failed: ${stderr.toString().trim()}`;
  } catch (error) {
    return (error as Error).message;
  }
}

// --- internal ---

/** Root needs a namespace of mounts, others one of users too. */
function namespace(): string[] {
  return process.getuid?.() === 0 ? ["unshare", "-m"] : ["unshare", "-U", "-r", "-m"];
}
