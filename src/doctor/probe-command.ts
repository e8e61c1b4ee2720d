/**
 * The hidden command by which `doctor` runs this program again to ask the driver.
 */

export const probeCommand = "doctor-gpu-probe";
