/**
 * How far approximations are from the exact image. Help and warnings quote these figures; they are
 * measured with the bundled model, never assumed, and tests hold them.
 */

/** PSNR of images in bf16 against f32 on the CPU, in dB: the model's own prompt, seeds 1 to 4. */
export const bf16Psnr = { min: 53, max: 57 } as const;

/** The same in words. */
export const bf16Error = `bf16 is about twice as fast and not quite the same image: with the \
bundled model the two differ by ${bf16Psnr.min} to ${bf16Psnr.max} dB PSNR`;

/** PSNR of 40 images in int8 against f32, in dB: `bun run bench int8`. */
const int8Psnr = { mean: 50, worst: 42 };

/** The same in words. */
export const int8Error = `int8 computes the linear layers of the UNet in 8 bits and the rest as \
bf16 where the processor has it: ${int8Psnr.mean} dB on average and ${int8Psnr.worst} at worst`;

/** PSNR of the decode in tiles against the whole decode, in dB: `bun run bench tiling`. */
export const tilingPsnr = { min: 36, max: 44 } as const;

/** The same in words. */
export const tilingError = `with the bundled model the two differ by ${tilingPsnr.min} to \
${tilingPsnr.max} dB PSNR`;
