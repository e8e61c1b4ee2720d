/**
 * The faults that are injected, one row each: what is broken, how it ends, and the test that breaks
 * it. `tests/control/faults.test.ts` checks that each of the tests is there; rows that have none of
 * their own elsewhere are tested in that file.
 */
export interface Fault {
  fault: string;
  /** What a user is told, or what is as before. */
  ends: string;
  /** File, and words of the test's name or of its row. */
  test: readonly [path: string, words: string];
}

function faults(path: string, rows: readonly (readonly [string, string, string])[]): Fault[] {
  return rows.map(([fault, ends, words]) => ({ fault, ends, test: [path, words] }));
}

export const faultTable: readonly Fault[] = [
  ...faults("tests/control/faults.test.ts", [
    ["the disk is full at each write of an image", "one sentence, no file", "the disk is full"],
    ["files may not grow (RLIMIT_FSIZE)", "one sentence, the old file stays", "RLIMIT_FSIZE"],
    ["no file may be opened (RLIMIT_NOFILE)", "one sentence", "RLIMIT_NOFILE"],
    ["kill -9 while images are written", "whole files or none", "kill -9 at random moments"],
    ["the job store's disk is full", "the job is refused, the store goes on", "store on a full"],
    ["the clock jumps a day back and forth", "the store's order stays", "the clock jumps"],
    ["the cache of hashes is cut or is no JSON", "hashes are made again", "cache of hashes"],
  ]),
  ...faults("tests/control/limits.test.ts", [
    ["an image is a device that never ends", "one sentence", "what never ends takes no more"],
  ]),
  ...faults("tests/native/damage.test.ts", [
    ["bytes of a weights file are changed", "generated or one sentence", "bytes of a weights file"],
    ["values of a config are changed", "opened or one sentence", "values of $"],
    ["bytes of a config are changed", "opened or one sentence", "bytes of $"],
  ]),
  ...faults("tests/native/weight-changes.test.ts", [
    ["weights are overwritten while mapped", "refused by name", "a file overwritten in place"],
    ["weights are replaced by another file", "as before", "another file moved to its place"],
  ]),
  ...faults("zig/weights/mapped_file.zig", [
    ["weights are cut while mapped", "interrupts, named", "a file cut short while mapped"],
    ["weights are moved away", "as before", "one that was moved away is not"],
    ["a bus error elsewhere", "the handler before gets it", "a bus error elsewhere"],
  ]),
  ...faults("zig/weights/safetensors.zig", [
    ["a header without end", "refused with little memory", "lists and headers without end"],
    ["a nested header", "refused with little memory", "nesting is limited"],
  ]),
  ...faults("zig/devices/failures_test.zig", [
    ["a rank dies at any place, NCCL", "the other ends, next job", "the next job works: NCCL"],
    ["a rank dies at any place, copies", "the other ends, next job", "the next job works: copies"],
    ["a rank dies before its first contact", "the other ends", "before its first contact"],
    ["a rank never comes to the first contact", "ends at the limit", "never comes to"],
  ]),
  ...faults("zig/backend/cuda/tests/errors.zig", [
    ["each driver call of a stream fails", "named", "every driver call of a rank's stream"],
    ["each driver call of opening a GPU fails", "named", "every driver call of opening a GPU"],
    ["each cuBLASLt call fails", "named", "every cuBLASLt call"],
    ["each cuDNN call fails", "named", "every cuDNN call"],
    ["each NCCL call fails", "named", "every NCCL call"],
  ]),
  ...faults("tests/native/patches-faults.test.ts", [
    ["a rank on the CPU throws", "named, the next job works", "fails: one of"],
    ["a rank on the CPU stalls", "named at the limit", "stalls: one of"],
    ["a rank is slow", "waited for", "a rank that is slow within the limit"],
  ]),
  ...faults("tests/cuda/deaths.test.ts", [
    ["a GPU is lost, a kernel crashes, a launch fails", "by name", "test.each(["],
  ]),
  ...faults("tests/cuda/stuck.test.ts", [
    ["a stream never ends", "given up, closing ends", "a queue that never ends is given up"],
    ["a call into the driver hangs", "closing ends", "closing ends where a call"],
    ["closing while a stream never ends", "given up", "closing while a queue never ends"],
  ]),
  ...faults("tests/cuda/processes.test.ts", [
    ["kill -9 of a process of two", "the other names it", "a process that is killed while it"],
    ["flags of two processes differ", "both end before loading", "flags that differ end both"],
  ]),
  ...faults("tests/program/two-hosts.test.ts", [
    ["the link between hosts is cut", "both end, each names the other", "cut for good"],
    ["the link is cut and restored", "as before", "cut and restored"],
    ["the link is slow", "as before", '"slow"'],
  ]),
  ...faults("tests/control/rendezvous-strangers.test.ts", [
    ["strangers flood and drip", "as before", "floods and drips keep nobody out"],
    ["strangers say nothing", "as before", "silent connections"],
    ["strangers send nonsense", "sent away", "strangers are sent away"],
    ["a wrong or overheard secret", "sent away", "what a process overheard"],
    ["a false process 0", "believed nothing", "believed nothing"],
    ["connections end before an answer", "comes again", "comes again"],
  ]),
  ...faults("tests/control/distributed.test.ts", [
    ["a process fails", "named to all", "who fails is named to all"],
    ["process 0 fails", "named to all", "process 0's failure"],
    ["a process hangs", "named", "who hangs is named too"],
    ["a process never comes", "named", "who does not come is named"],
    ["the port is taken", "one sentence at once", "a port that is taken"],
  ]),
  ...faults("tests/control/hub-download.test.ts", [
    ["a download is cut at 20 places", "whole in the end", "20 at random places"],
    ["the server sends nothing more", "asked again", "sends nothing more"],
    ["the disk is too small", "refused", "too little disk"],
    ["the cache cannot be written", "refused", "a cache that cannot be written"],
    ["any answer of a server", "the file or a sentence", "whatever the server answers"],
    ["several at once", "one fetches", "of one process: one fetches"],
  ]),
  ...faults("tests/program/pull.test.ts", [
    ["kill -9 in the middle of a download", "another goes on", "killed in the middle"],
    ["Ctrl-C in the middle of a download", "130, the next goes on", "stopped by Ctrl-C"],
  ]),
  ...faults("tests/program/binary-cache.test.ts", [
    ["a cache below a folder of others", "refused", "unless it is sticky"],
    ["a cache is a link", "refused", "refuses a link"],
    ["extracted files are damaged", "replaced", "%s is replaced"],
    ["eight extract at once", "whole files alone", "eight processes at once"],
  ]),
  ...faults("tests/serve/killed.test.ts", [
    ["kill -9 of the server", "no job lost, whole images", "kill -9 at two random moments"],
    ["SIGTERM of the server", "within a step, the next goes on", "SIGTERM stops within a step"],
  ]),
  ...faults("tests/serve/jobs.test.ts", [
    ["200 clients at once", "told when to come again", "200 clients at once"],
    ["a lost session", "opened anew", "a lost session is opened anew"],
    ["a job that ends its server", "has failed", "ended its server too often"],
    ["two servers, one folder", "refused", "two servers do not share"],
    ["temporary files of a killed server", "no images", "files that a killed server left"],
  ]),
  ...faults("tests/serve/workers.test.ts", [
    ["kill -9 of three workers", "no job lost", "kill -9 of three workers"],
    ["Redis is killed and comes back empty", "no job lost", "comes back empty"],
    ["a worker stops", "gives its job back", "gives its job back"],
  ]),
  ...faults("tests/control/load-failure.test.ts", [
    ["a limit of address space", "named, or generated", "under ulimit -v"],
  ]),
  ...faults("zig/system/memory.zig", [
    ["memory of a group, version 1", "refused before loading", "version 1: the memory"],
    ["memory of nested groups, version 2", "refused before loading", "version 2: the group"],
  ]),
  ...faults("tests/control/fuzz.test.ts", [
    ["a job store of another version", "goes on without", "without jobs of another version"],
    ["a job store that is damaged", "refused", "a damaged one is refused"],
  ]),
];
