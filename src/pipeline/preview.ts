/**
 * Previews of an image during denoising: a linear approximation of SDXL's decoder (latent2rgb). It
 * computes one pixel per position of the latent with 12 multiplications; the decoder needs
 * billions.
 *
 * The factors are those that ComfyUI fitted to SDXL's VAE. For another VAE with four channels they
 * show shapes in wrong colours; for other channel counts the first three channels are red, green
 * and blue.
 */

/** Red, green and blue of each channel of the latent, in the sampler's scale. */
const factors = [
  [0.3651, 0.4232, 0.4341],
  [-0.2533, -0.0042, 0.1068],
  [0.1076, 0.1111, -0.0362],
  [-0.3165, -0.2492, -0.2188],
] as const;
const bias = [0.1084, -0.0175, -0.0011] as const;

/**
 * RGB bytes of one image's latent (row, column, channel) times `scale`: 1 for the final latent, the
 * next step's `inputScale` for an intermediate one.
 */
export function previewPixels(latent: Float32Array, channels: number, scale: number): Uint8Array {
  const positionCount = latent.length / channels;
  const pixels = new Uint8Array(positionCount * 3);
  for (let position = 0; position < positionCount; position++) {
    const values = latent.subarray(position * channels, (position + 1) * channels);
    for (let colour = 0; colour < 3; colour++) {
      const level = scale * colourOf(values, colour) + (channels === 4 ? (bias[colour] ?? 0) : 0);
      pixels[position * 3 + colour] = Math.round(255 * Math.min(1, Math.max(0, level / 2 + 0.5)));
    }
  }
  return pixels;
}

// --- internal ---

function colourOf(values: Float32Array, colour: number): number {
  if (values.length !== factors.length) return values[colour] ?? 0;
  return factors.reduce((sum, factor, i) => sum + (factor[colour] ?? 0) * (values[i] ?? 0), 0);
}
