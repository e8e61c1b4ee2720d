/**
 * Two hosts on one machine: network namespaces joined by a link that tests cut, delay and restore.
 * Needs root and Linux's namespaces; `whyNoHosts` says what is missing.
 */
import { type SlowLinkOptions, slowLink } from "./slow-link.ts";

export const addresses = ["10.213.0.1", "10.213.0.2"] as const;

export interface TwoHosts {
  /** What precedes a command that host `index` runs. */
  on(index: number): string[];
  cut(): void;
  restore(): void;
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

/** `slow`: over a link that delays and loses packets (slow-link.ts). */
export function twoHosts(slow?: SlowLinkOptions): TwoHosts {
  const names = [0, 1].map((index) => `basedxl-${process.pid}-${index}`);
  const links = ["bxl0", "bxl1"] as const;
  let tunnels: Disposable | null = null;
  const remove = () => {
    tunnels?.[Symbol.dispose]();
    for (const name of names) Bun.spawnSync(["ip", "netns", "del", name], { stderr: "ignore" });
  };
  try {
    for (const name of names) ip("netns", "add", name);
    if (slow) tunnels = slowLink(links, slow);
    else ip("link", "add", links[0], "type", "veth", "peer", links[1]);
    for (const [index, name] of names.entries()) {
      ip("link", "set", links[index]!, "netns", name);
      ip("-n", name, "address", "add", `${addresses[index]}/24`, "dev", links[index]!);
      ip("-n", name, "link", "set", "lo", "up");
      ip("-n", name, "link", "set", links[index]!, "up");
    }
  } catch (error) {
    remove();
    throw error;
  }
  const set = (state: string) => ip("-n", names[0]!, "link", "set", links[0], state);
  return {
    on: (index) => ["ip", "netns", "exec", names[index]!],
    cut: () => set("down"),
    restore: () => set("up"),
    [Symbol.dispose]: remove,
  };
}

// --- internal ---

function ip(...words: string[]): void {
  const { success, stderr } = Bun.spawnSync(["ip", ...words], { stderr: "pipe" });
  if (!success) throw new Error(`ip ${words.join(" ")}: ${stderr}`);
}
