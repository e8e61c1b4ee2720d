/**
 * Where the coordinator listens: on the address that MASTER_ADDR names, where it is one of this
 * machine, so that nobody reaches it by another network.
 */
import { lookup } from "node:dns/promises";
import { isIP } from "node:net";
import { networkInterfaces } from "node:os";

/**
 * The address to bind. Every address (`::`, which takes IPv4 too) only where MASTER_ADDR is none of
 * this machine, as behind NAT or a Kubernetes service, or a name that this machine alone takes for
 * its loopback (Debian's 127.0.1.1).
 */
export async function listenAddress(host: string): Promise<string> {
  if (host === "localhost") return "127.0.0.1";
  if (isIP(host) !== 0) return isOwn(host) ? host : everyAddress(host);
  const found = await lookup(host, { all: true }).catch(() => []);
  const own = found.map(({ address }) => address).filter(isOwn);
  const reachable = own.find((address) => !isLoopback(address));
  return reachable ?? everyAddress(found[0]?.address ?? "");
}

/** Whether this machine alone reaches the address. */
export function isLoopback(address: string): boolean {
  return address.startsWith("127.") || address === "::1";
}

// --- internal ---

function everyAddress(address: string): string {
  return isIP(address) === 6 ? "::" : "0.0.0.0";
}

function isOwn(address: string): boolean {
  if (isLoopback(address)) return true;
  const [plain] = address.split("%");
  return Object.values(networkInterfaces()).some((list) =>
    list?.some((one) => one.address === plain),
  );
}
