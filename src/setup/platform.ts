/**
 * Supported platforms, and the native library's file name on each. Other platforms are refused
 * before anything is downloaded, with a sentence that names the supported ones.
 */

/** As Bun reports them: `process.platform`, `process.arch`, `Bun.version`. */
export interface Machine {
  platform: string;
  arch: string;
  bunVersion: string;
  bunVersionMin: string;
}

/** Platform and CPU pairs for which the compiler package, sharp and the kernels all exist. */
export const supportedMachines: readonly string[] = ["linux-x64", "linux-arm64", "darwin-arm64"];

/** The reason why BasedXL cannot run on this machine, as a sentence; null when it can. */
export function machineProblem(machine: Machine): string | null {
  const { platform, arch, bunVersion, bunVersionMin } = machine;
  if (!supportedMachines.includes(`${platform}-${arch}`)) {
    const name = platformNames[platform] ?? platform;
    const hint = platform === "win32" ? " On Windows, WSL 2 gives a Linux that works." : "";
    return (
      `BasedXL does not run on ${name} (${arch}): it needs Linux on x64 or arm64, ` +
      `or macOS on Apple silicon.${hint}`
    );
  }
  if (Bun.semver.order(bunVersion, bunVersionMin) < 0) {
    return (
      `Bun ${bunVersion} is too old: BasedXL needs Bun ${bunVersionMin} or newer. ` +
      "`bun upgrade` gets it."
    );
  }
  return null;
}

/** File name of the native library on a platform (`process.platform`). */
export function libraryName(platform: string): string {
  return platform === "darwin" ? "libbasedxl.dylib" : "libbasedxl.so";
}

// --- internal ---

const platformNames: Record<string, string> = {
  win32: "Windows",
  darwin: "macOS",
  linux: "Linux",
  freebsd: "FreeBSD",
};
