/**
 * What a process writes and whom it calls, from strace's log.
 */
import { basename, dirname, resolve } from "node:path";

/** The calls that change a disk or reach a network. */
export const tracedCalls = [
  ...["open", "openat", "openat2", "creat", "mkdir", "mkdirat", "mknod", "mknodat"],
  ...["rename", "renameat", "renameat2", "link", "linkat", "symlink", "symlinkat"],
  ...["unlink", "unlinkat", "rmdir", "truncate", "chmod", "fchmodat", "chown", "fchownat"],
  ...["utimensat", "socket", "connect", "bind", "sendto"],
];

export interface Traced {
  /** Absolute paths that were opened for writing, made, renamed or removed. */
  written: string[];
  /** Sockets of the internet's families, and attempts to connect. */
  network: string[];
  /** Written paths that are neither of `allowed` nor below them, nor ours on the way to them. */
  outside(allowed: readonly string[]): string[];
}

/** Why strace cannot be used here, or null when it can. */
export function noStraceReason(): string | null {
  if (Bun.which("strace") === null) return "there is no strace command";
  const { exitCode, stderr } = Bun.spawnSync(["strace", "-f", "-o", "/dev/null", "true"]);
  return exitCode === 0 ? null : `strace failed: ${stderr.toString().trim()}`;
}

/** Reads a log of `strace -f -e trace=...` of a process that ran in `folder`. */
export function readTrace(log: string, folder: string): Traced {
  const written = new Set<string>();
  const network: string[] = [];
  for (const line of log.split("\n")) {
    const call = /^\d+\s+(\w+)\((.*)$/.exec(line);
    if (!call) continue;
    const [, name = "", rest = ""] = call;
    if (/^(socket|connect|bind|sendto)$/.test(name)) {
      if (!/AF_UNIX|AF_NETLINK/.test(rest)) network.push(line);
      continue;
    }
    // Looking whether something is there is not writing.
    const opens = name.startsWith("open");
    if (opens && !/O_WRONLY|O_RDWR|O_CREAT/.test(rest)) continue;
    for (const [, path = ""] of rest.matchAll(/"((?:[^"\\]|\\.)*)"/g)) {
      written.add(resolve(folder, path));
    }
  }
  return {
    written: [...written].sort(),
    network,
    outside: (allowed) => [...written].filter((path) => !isAllowed(path, allowed)).sort(),
  };
}

// --- internal ---

function isAllowed(path: string, allowed: readonly string[]): boolean {
  if (allowed.some((each) => path === each || path.startsWith(`${each}/`))) return true;
  // A image is written beside its place and renamed; these devices keep nothing.
  if (/^\/dev\/(null|tty|u?random)$/.test(path)) return true;
  const beside = allowed.map((each) => dirname(each));
  return /^\.basedxl-[\w-]+\.tmp$/.test(basename(path)) && beside.includes(dirname(path));
}
