/**
 * Two hosts on one machine: network namespaces joined by a link that tests cut, delay and restore.
 * Needs root and Linux's namespaces; `whyNoHosts` says what is missing.
 */
export const addresses = ["10.213.0.1", "10.213.0.2"] as const;

export interface TwoHosts {
  /** What precedes a command that host `index` runs. */
  on(index: number): string[];
  cut(): void;
  restore(): void;
  /** Delays what host 0 sends, and drops a few packets; false where the kernel has no netem. */
  slow(delayMs: number): boolean;
  [Symbol.dispose](): void;
}

/** Null where hosts can be made. */
export function whyNoHosts(): string | null {
  if (process.platform !== "linux" || process.getuid?.() !== 0) return "needs root on Linux";
  if (Bun.which("ip") === null) return "needs iproute2";
  try {
    twoHosts()[Symbol.dispose]();
    return null;
  } catch {
    return "network namespaces are not permitted";
  }
}

export function twoHosts(): TwoHosts {
  const names = [0, 1].map((index) => `basedxl-${process.pid}-${index}`);
  const links = [0, 1].map((index) => `bxl${index}`);
  const remove = () => {
    for (const name of names) Bun.spawnSync(["ip", "netns", "del", name], { stderr: "ignore" });
  };
  try {
    for (const name of names) ip("netns", "add", name);
    ip(...["-n", names[0]!, "link", "add", links[0]!, "type", "veth"], ...["peer", links[1]!]);
    ip("-n", names[0]!, "link", "set", links[1]!, "netns", names[1]!);
    for (const [index, name] of names.entries()) {
      ip("-n", name, "address", "add", `${addresses[index]}/24`, "dev", links[index]!);
      ip("-n", name, "link", "set", "lo", "up");
      ip("-n", name, "link", "set", links[index]!, "up");
    }
  } catch (error) {
    remove();
    throw error;
  }
  const set = (state: string) => ip("-n", names[0]!, "link", "set", links[0]!, state);
  return {
    on: (index) => ["ip", "netns", "exec", names[index]!],
    cut: () => set("down"),
    restore: () => set("up"),
    slow(delayMs) {
      const queue = ["qdisc", "replace", "dev", links[0]!, "root", "netem"];
      const how = ["delay", `${delayMs}ms`, "loss", "2%"];
      const command = ["tc", "-n", names[0]!, ...queue, ...how];
      return Bun.spawnSync(command, { stderr: "ignore" }).success;
    },
    [Symbol.dispose]: remove,
  };
}

// --- internal ---

function ip(...words: string[]): void {
  const { success, stderr } = Bun.spawnSync(["ip", ...words], { stderr: "pipe" });
  if (!success) throw new Error(`ip ${words.join(" ")}: ${stderr}`);
}
