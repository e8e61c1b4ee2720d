/**
 * What the system gives no more of: memory and threads, call by call; limits of the process; and
 * signals, clocks, and where output goes.
 */
import type { Fault } from "./fault.ts";
import type { LibraryFaults } from "./tools.ts";

const noMemory = /^error: .*([Mm]emory|no-memory|OutOfMemory)/;

/** The `first`th call of the library and the `count - 1` next. */
export function libraryFault(
  call: keyof LibraryFaults,
  first: number,
  count: number,
  ends: RegExp | null,
): Fault {
  const which = count === 1 ? `${first}` : `${first} and the next`;
  return {
    name: `no ${call} from call ${which}`,
    apply: ({ library }) => void Object.assign(library, { [call]: { first, count } }),
    // What is done without: a smaller cache, pages of the usual size, fewer threads.
    ...{ ends, mayPass: true },
  };
}

/** Memory that the library asks for, `first` among the calls of a run. */
export function memoryFault(first: number, count: number): Fault {
  return libraryFault("memory", first, count, noMemory);
}

function limit(name: string, before: string, ends: RegExp, mayPass = true): Fault {
  return { name, apply: (run) => void Object.assign(run, { before }), ends, mayPass };
}

function jump(name: string, first: number, milliseconds: number): Fault {
  const clock = { first, count: 1e9, value: milliseconds };
  return { name, apply: ({ library }) => void Object.assign(library, { clock }), ends: null };
}

const day = 86_400_000;

export const limitFaults: readonly Fault[] = [
  libraryFault("mapping", 1, 1, /^error: .*(cannot be read|emory|threads)/),
  libraryFault("mapping", 2, 99, /^error: .*(cannot be read|emory|threads)/),
  libraryFault("thread", 1, 99, /^error: The system gave no threads/),
  libraryFault("thread", 2, 1, /^error: The system gave no threads/),
  limit("address space is limited", "ulimit -v 1500000", /^error: .*ulimit -v/),
  limit("files may not grow", "trap '' XFSZ; ulimit -f 4", /^error: Cannot write .*EFBIG/, false),
  limit("few files may be open", "ulimit -n 24", /^error: .*(EMFILE|files|Quota)/),
  limit("data is limited", "ulimit -d 300000", /^error: .*(ulimit -d|emory)/),
  jump("the clock jumps a day back", 20, -day),
  jump("the clock jumps a day ahead", 40, day),
  {
    name: "standard error is a full disk",
    apply: (run) => void Object.assign(run, { before: "exec 2>/dev/full" }),
    ends: /^$/,
  },
];

/** Of no other process: the limit counts all of a user's, and root has none. */
const userId = 61_234;

/**
 * Makes a program that user's, who reads all files, as the clone may be in a folder of root's, also
 * where access() asks what the user could do alone; and is limited still.
 */
const asUser = [
  ...["setpriv", `--reuid=${userId}`, `--regid=${userId}`, "--clear-groups"],
  ...["--inh-caps=-all,+dac_override", "--ambient-caps=-all,+dac_override"],
  "--securebits=+no_setuid_fixup",
];

function processes(name: string, count: number, ends: RegExp): Fault {
  return {
    ...{ name, ends, mayPass: true },
    apply(run) {
      Bun.spawnSync(["chown", "-R", `${userId}:${userId}`, run.folder]);
      run.before = `exec prlimit --nproc=${count} ${asUser.join(" ")} "$0" "$@"`;
    },
  };
}

/** Why no user can be given few processes; null where one can. */
export function noUsersReason(): string | null {
  if (process.getuid?.() !== 0) return "only root can become another user";
  const isThere = Bun.which("setpriv") !== null && Bun.which("prlimit") !== null;
  if (!isThere) return "there is no setpriv or prlimit";
  const { success } = Bun.spawnSync([...asUser, "true"], { stderr: "ignore" });
  return success ? null : "setpriv may not choose what a user may do";
}

const noThreads = /^error: (The system gave no threads: .*ulimit -u|Cannot encode .* thread)/;

/**
 * Limits of processes and threads (RLIMIT_NPROC) of a user: threads of Bun, which aborts where it
 * gets none of its own, and some more.
 */
export const processFaults: readonly Fault[] = [6, 10, 14].map((more) =>
  processes(
    `a user may have ${more} processes and one a core`,
    more + navigator.hardwareConcurrency,
    noThreads,
  ),
);

function signal(name: NodeJS.Signals, exitCode: number, ends: RegExp): Fault {
  const apply: Fault["apply"] = ({ during }) => void during.push((child) => child.kill(name));
  return { name: `${name} while it generates`, apply, exitCode, ends };
}

/** Of a run that lasts. */
export const signalFaults: readonly Fault[] = [
  signal("SIGTERM", 143, /Stopping/),
  signal("SIGINT", 130, /Stopping/),
  signal("SIGHUP", 129, /./),
  signal("SIGKILL", 137, /./),
];
