/**
 * Files that a process writes and network calls that it makes, from strace's log.
 */
import { basename, dirname, resolve } from "node:path";

/** System calls that change a disk or use a network. */
export const tracedCalls = [
  ...["open", "openat", "openat2", "creat", "mkdir", "mkdirat", "mknod", "mknodat"],
  ...["rename", "renameat", "renameat2", "link", "linkat", "symlink", "symlinkat"],
  ...["unlink", "unlinkat", "rmdir", "truncate", "chmod", "fchmodat", "chown", "fchownat"],
  ...["utimensat", "socket", "connect", "bind", "sendto"],
];

interface Traced {
  /** Absolute paths that were opened for writing, created, renamed or removed. */
  written: string[];
  /** Internet sockets (AF_INET, AF_INET6) and attempts to connect. */
  network: string[];
  /** Written paths outside `allowed`, other than folders created on the way to them. */
  outside(allowed: readonly string[]): string[];
}

/** The reason why strace cannot be used here; null when it can. */
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
    // Opening without a write flag is not writing.
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
  // An image is written to a temporary file beside it and renamed; these devices store nothing.
  if (/^\/dev\/(null|tty|u?random)$/.test(path)) return true;
  const beside = allowed.map((each) => dirname(each));
  return /^\.basedxl-[\w-]+\.tmp$/.test(basename(path)) && beside.includes(dirname(path));
}
