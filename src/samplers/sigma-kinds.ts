/**
 * Spacings of noise levels between a largest and a smallest one, as functions of these alone:
 * Karras et al. (arXiv 2206.00364, equation 5, rho 7), exponential, beta (arXiv 2407.12173,
 * alpha = beta = 0.6). Source: diffusers `_convert_to_karras` and its like.
 */
import type { RangeKind } from "./names.ts";

/** `count` sigmas, decreasing. */
export function spacedSigmas(
  kind: RangeKind,
  sigmaMax: number,
  sigmaMin: number,
  count: number,
): number[] {
  switch (kind) {
    case "karras": {
      const start = sigmaMax ** (1 / rho);
      const end = sigmaMin ** (1 / rho);
      return ramp(count).map((place) => (start + place * (end - start)) ** rho);
    }
    // Uniform in log sigma both; Lu's has its own range of them.
    case "exponential":
    case "lu": {
      const start = Math.log(sigmaMax);
      const end = Math.log(sigmaMin);
      const step = count === 1 ? 0 : (end - start) / (count - 1);
      return ramp(count).map((_, i) => Math.exp(i > 0 && i === count - 1 ? end : start + i * step));
    }
    case "beta":
      return ramp(count).map((place) => sigmaMin + betaQuantile(1 - place) * (sigmaMax - sigmaMin));
  }
}

/** numpy.linspace(0, 1, count). */
export function ramp(count: number): number[] {
  return Array.from({ length: count }, (_, i) =>
    count === 1 ? 0 : i === count - 1 ? 1 : i * (1 / (count - 1)),
  );
}

/** Where the distribution function of Beta(0.6, 0.6) is `p`: scipy.stats.beta.ppf. */
export function betaQuantile(p: number): number {
  if (p <= 0) return 0;
  if (p >= 1) return 1;
  // The distribution is symmetric, and the series below converges fast up to a half.
  if (p > 0.5) return 1 - betaQuantile(1 - p);
  let low = 0;
  let high = 0.5;
  for (let i = 0; i < 200 && low < high; i++) {
    const middle = (low + high) / 2;
    if (middle === low || middle === high) break;
    if (betaIntegral(middle) < p * betaWhole) low = middle;
    else high = middle;
  }
  return (low + high) / 2;
}

// --- internal ---

const rho = 7;
const betaShape = 0.6;

/** The integral from 0 to 1. */
const betaWhole = 2 * betaIntegral(0.5);

/** The integral of t^(a-1)·(1-t)^(a-1) from 0 to x <= 0.5, as a power series. */
function betaIntegral(x: number): number {
  let sum = 0;
  let coefficient = 1;
  for (let n = 0; n < 200; n++) {
    const term = (coefficient * x ** n) / (betaShape + n);
    sum += term;
    if (term < sum * 1e-17) break;
    coefficient *= (n + 1 - betaShape) / (n + 1);
  }
  return sum * x ** betaShape;
}
