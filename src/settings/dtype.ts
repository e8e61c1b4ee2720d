/**
 * What the CPU computes in, and what the user of bf16 is told: its error is measured, never
 * assumed.
 */

/** PSNR of images against f32, in dB: the bundled model, its own prompt, seeds 1 to 4. */
export const bf16Psnr = { min: 53, max: 57 } as const;

/** The same in words, for help. */
export const bf16Error = `bf16 is about twice as fast and not quite the same image: with the \
bundled model the two differ by ${bf16Psnr.min} to ${bf16Psnr.max} dB PSNR`;
