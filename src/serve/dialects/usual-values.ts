/**
 * Lists of settings as a user of this program would give them: other programs send every value.
 */

/** None where all are the usual one, as metadata has it then. */
export function unlessUsual<T>(values: readonly T[], usual: T): readonly T[] {
  return values.every((value) => value === usual) ? [] : values;
}
