/**
 * The folder in which `bun run test:gpu` gives the emulator the names of NVIDIA's libraries.
 */

/** How its name begins. */
export const driverFolderPrefix = "basedxl-driver-";

/** Whether the system's loader finds the emulator in the place of NVIDIA's libraries. */
export function isEmulatedDriver(): boolean {
  return process.env.LD_LIBRARY_PATH?.includes(driverFolderPrefix) ?? false;
}
