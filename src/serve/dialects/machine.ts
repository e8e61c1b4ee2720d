/**
 * Memory and devices of this machine, as other programs' status pages show them.
 */
import { freemem, totalmem } from "node:os";

export function memoryOfMachine() {
  return { free: freemem(), used: process.memoryUsage().rss, total: totalmem() };
}
