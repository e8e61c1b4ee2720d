/**
 * A1111's schedule types, as /sdapi/v1/schedulers lists them.
 * Source: A1111 1.10, modules/sd_schedulers.py.
 */
interface ListedSchedule {
  name: string;
  label: string;
  aliases: readonly string[] | null;
  default_rho: number;
  need_inner_model: boolean;
}

export const schedules: readonly ListedSchedule[] = [
  schedule("automatic", "Automatic"),
  schedule("uniform", "Uniform", { isOfModel: true }),
  schedule("karras", "Karras", { rho: 7 }),
  schedule("exponential", "Exponential"),
  schedule("sgm_uniform", "SGM Uniform", { isOfModel: true, aliases: ["SGMUniform"] }),
  schedule("kl_optimal", "KL Optimal"),
  schedule("align_your_steps", "Align Your Steps"),
  schedule("simple", "Simple", { isOfModel: true }),
  schedule("normal", "Normal", { isOfModel: true }),
  schedule("ddim", "DDIM", { isOfModel: true }),
  schedule("beta", "Beta", { isOfModel: true }),
];

/** Whether requests may name it; case does not matter. */
export function isSchedule(text: string): boolean {
  const key = text.trim().toLowerCase();
  return schedules.some(({ name, label, aliases }) => {
    return [name, label, ...(aliases ?? [])].some((each) => each.toLowerCase() === key);
  });
}

// --- internal ---

function schedule(
  name: string,
  label: string,
  {
    rho = -1,
    isOfModel = false,
    aliases = null,
  }: { rho?: number; isOfModel?: boolean; aliases?: readonly string[] | null } = {},
): ListedSchedule {
  return { name, label, aliases, default_rho: rho, need_inner_model: isOfModel };
}
