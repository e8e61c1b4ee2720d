/**
 * NVIDIA's driver as the system shows it, without starting it: the kernel module, libcuda where the
 * loader would find it, and devices on the PCI bus.
 */
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { delimiter, join } from "node:path";
import { count, textOf } from "./machine.ts";
import { type DriverFacts, type Gpu, type Line, note, ok, problem } from "./report.ts";

const libraryName = "libcuda.so.1";
const nvidiaVendor = "0x10de";

/** `root` is "/" except in tests. */
export function findDriver(env: Record<string, string | undefined>, root = "/"): DriverFacts {
  const module = textOf(join(root, "proc/driver/nvidia/version"));
  return {
    path: findLibrary(env, root),
    version: /Kernel Module(?: for \w+)?\s+([\d.]+)/.exec(module)?.[1] ?? null,
    devicesOnBus: devicesOnBus(join(root, "sys/bus/pci/devices")),
  };
}

/** The driver's line; a problem where parts are missing. `gpus` are those that it reported. */
export function driverLine(
  { path, version, devicesOnBus }: DriverFacts,
  gpus: readonly Gpu[],
  env: Record<string, string | undefined>,
): Line {
  const onBus = devicesOnBus ?? 0;
  if (path === null && version === null) {
    if (onBus === 0)
      return note("driver", "no NVIDIA GPU was found: images are generated on the CPU");
    return problem("driver", {
      what: `${count(onBus, "NVIDIA device")} on the PCI bus, but no driver is loaded.`,
      advice: "Install NVIDIA's driver; `nvidia-smi` then lists the GPUs.",
    });
  }
  if (path === null) {
    return problem("driver", {
      what: `The kernel has NVIDIA's module ${version}, but ${libraryName} is not found.`,
      advice:
        "Install the driver's libraries (libcuda1, libnvidia-compute); in a container, start it " +
        "with the NVIDIA Container Toolkit: docker run --gpus all.",
    });
  }
  const text = [version, path].filter(Boolean).join(", ");
  if (gpus.length > 0) return ok("driver", text);
  const hidden = env.CUDA_VISIBLE_DEVICES;
  return problem("driver", {
    what: `${text}, but it reports no GPU.`,
    advice:
      hidden === undefined
        ? "See whether `nvidia-smi` lists any; in a container, start it with --gpus all."
        : `CUDA_VISIBLE_DEVICES is "${hidden}": unset it to see all GPUs.`,
  });
}

// --- internal ---

/** In the order of the loader: LD_LIBRARY_PATH, its cache, the usual folders. */
function findLibrary(env: Record<string, string | undefined>, root: string): string | null {
  const named = (env.LD_LIBRARY_PATH ?? "").split(delimiter).filter(Boolean);
  const usual = [
    ...["usr/lib/x86_64-linux-gnu", "usr/lib/aarch64-linux-gnu", "usr/lib64", "usr/lib"],
    ...["usr/local/nvidia/lib64", "usr/lib/wsl/lib", "run/opengl-driver/lib"],
  ];
  const folders = [...named, ...usual.map((folder) => join(root, folder))];
  const paths = folders.map((folder) => join(folder, libraryName));
  paths.splice(named.length, 0, ...cachedPaths(join(root, "etc/ld.so.cache")));
  return paths.find((path) => existsSync(path)) ?? null;
}

/** The cache holds paths as plain strings, each ended by a 0 byte. */
function cachedPaths(cachePath: string): string[] {
  try {
    const text = readFileSync(cachePath, "latin1");
    return text.split("\0").filter((path) => path.startsWith("/") && path.endsWith(libraryName));
  } catch {
    return [];
  }
}

/** Display and 3D controllers (class 03) of NVIDIA's. */
function devicesOnBus(folder: string): number | null {
  try {
    return readdirSync(folder).filter((device) => {
      const isNvidia = textOf(join(folder, device, "vendor")).trim() === nvidiaVendor;
      return isNvidia && textOf(join(folder, device, "class")).startsWith("0x03");
    }).length;
  } catch {
    return null;
  }
}
