/**
 * A link between two network namespaces that is slow and loses packets: what netem does where the
 * kernel has it. A TUN device in each namespace, whose packets this process passes on later or not
 * at all.
 */
import { dlopen } from "bun:ffi";
import { closeSync, constants, openSync, readSync, writeSync } from "node:fs";

export interface SlowLinkOptions {
  delayMs: number;
  /** Added to the delay: anything from 0 up to this. Packets may overtake each other. */
  jitterMs: number;
  /** Part of the packets that are lost. */
  loss: number;
}

/** Whether there are such devices. */
export function hasTunnels(): boolean {
  try {
    closeSync(openSync(tunnels, constants.O_RDWR));
    return true;
  } catch {
    return false;
  }
}

/** Creates both devices; whoever calls this moves them into namespaces. Disposing ends the link. */
export function slowLink(
  names: readonly [string, string],
  { delayMs, jitterMs, loss }: SlowLinkOptions,
): Disposable {
  const ends = names.map(createTunnel);
  const packet = new Uint8Array(packetBytesMax);
  const passOn = (from: number, to: number) => {
    for (;;) {
      let length: number;
      try {
        length = readSync(from, packet);
      } catch {
        return; // none for now
      }
      if (Math.random() < loss) continue;
      const bytes = packet.slice(0, length);
      setTimeout(() => isOpen && writeSync(to, bytes), delayMs + jitterMs * Math.random());
    }
  };
  let isOpen = true;
  const timer = setInterval(() => {
    passOn(ends[0]!, ends[1]!);
    passOn(ends[1]!, ends[0]!);
  }, pollMs);
  return {
    [Symbol.dispose]() {
      isOpen = false;
      clearInterval(timer);
      for (const end of ends) closeSync(end);
    },
  };
}

// --- internal ---

const tunnels = "/dev/net/tun";
const packetBytesMax = 65536;
const pollMs = 2;
/** From linux/if_tun.h: the request, then IFF_TUN and IFF_NO_PI. */
const setInterface = 0x400454can;
const flags = 0x1001;

function createTunnel(name: string): number {
  const { ioctl } = dlopen("libc.so.6", {
    ioctl: { args: ["i32", "u64", "ptr"], returns: "i32" },
  }).symbols;
  const file = openSync(tunnels, constants.O_RDWR | constants.O_NONBLOCK);
  const request = new Uint8Array(40);
  new TextEncoder().encodeInto(name, request);
  new DataView(request.buffer).setUint16(16, flags, true);
  if (ioctl(file, setInterface, request) === 0) return file;
  closeSync(file);
  throw new Error(`no device ${name}`);
}
