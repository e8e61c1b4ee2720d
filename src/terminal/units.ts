/**
 * Durations and sizes as text.
 */

/** 0.012 s, 0.31 s, 4.2 s, 42 s, 3 min 20 s, 2 h 05 min. */
export function formatSeconds(seconds: number): string {
  if (seconds < 0.0995) return `${seconds.toFixed(3)} s`;
  if (seconds < 0.995) return `${seconds.toFixed(2)} s`;
  if (seconds < 9.95) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  const pad = (value: number) => String(value).padStart(2, "0");
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${pad(whole % 60)} s`;
  return `${Math.floor(whole / 3600)} h ${pad(Math.floor((whole % 3600) / 60))} min`;
}

/** 512 B, 3.2 kB, 45 MB, 6.94 GB. */
export function formatBytes(bytes: number): string {
  const [value, unit] = scaledBytes(bytes, bytes);
  return `${value} ${unit}`;
}

/** `bytes` in the unit that suits `whole`. */
export function scaledBytes(bytes: number, whole: number): [value: string, unit: string] {
  const units = ["B", "kB", "MB", "GB", "TB"];
  const power = Math.min(
    units.length - 1,
    Math.max(0, Math.floor(Math.log10(Math.max(1, whole) * 1.0005) / 3)),
  );
  const value = bytes / 1000 ** power;
  const digits = power === 0 || value >= 99.95 ? 0 : value >= 9.995 ? 1 : 2;
  return [value.toFixed(digits), units[power] ?? "B"];
}
