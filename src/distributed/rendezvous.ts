/**
 * How processes find each other (torch.distributed's rendezvous): process 0, the coordinator,
 * listens on MASTER_PORT; the others connect, say which rank they are and with which settings, and
 * receive the ncclUniqueId once all are there and agree. Settings that differ end the start with a
 * sentence on every process, and nobody waits for ever.
 *
 * Whoever reaches the port may connect. A visitor whose hello does not belong is sent away alone
 * and changes nothing; where other machines can reach the port, a secret keeps strangers from
 * taking a place (`secret.ts`).
 */
import { Client } from "./rendezvous/client.ts";
import { Coordinator } from "./rendezvous/coordinator.ts";
import type { Decisions, RendezvousOptions, RendezvousResult } from "./rendezvous/protocol.ts";
import { checkSecret } from "./rendezvous/secret.ts";

export type { Decisions, RendezvousOptions, RendezvousResult };

/**
 * Resolves when all processes are there. Rejects with "rank-failed" where one does not come or has
 * other settings; "io" for a port that cannot be opened; "cancelled" soon after `signal`.
 */
export async function rendezvous(options: RendezvousOptions): Promise<RendezvousResult> {
  checkSecret(options.secret);
  const attempt = options.process.index === 0 ? new Coordinator(options) : new Client(options);
  return await attempt.result();
}
