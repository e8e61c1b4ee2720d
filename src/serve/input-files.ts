/**
 * The images that a job reads, by what they are for: as bytes, as names of files, or as texts.
 */
export interface InputFiles<File> {
  /** To start from; null for noise alone. */
  image: File | null;
  /** White is made anew. */
  mask: File | null;
  /** Hints of `controlnet`, in its order. */
  controlImages?: readonly File[] | undefined;
}

/** The same of other values. */
export function mapFiles<From, To>(
  { image, mask, controlImages = [] }: InputFiles<From>,
  map: (file: From) => To,
): InputFiles<To> {
  const mapped = { image: image && map(image), mask: mask && map(mask) };
  return controlImages.length === 0 ? mapped : { ...mapped, controlImages: controlImages.map(map) };
}

/** The same of values that come later. */
export async function awaitFiles<File>(
  files: InputFiles<Promise<File>>,
): Promise<InputFiles<File>> {
  const { image, mask, controlImages = [] } = files;
  const hints = await Promise.all(controlImages);
  const own = { image: await image, mask: await mask };
  return hints.length === 0 ? own : { ...own, controlImages: hints };
}

export function allFiles<File>({ image, mask, controlImages = [] }: InputFiles<File>): File[] {
  return [image, mask, ...controlImages].filter((file) => file !== null);
}

/** What a request says of them. */
export function inputSettings<File>({ image, mask, controlImages = [] }: InputFiles<File>) {
  return {
    ...(image !== null && { image }),
    ...(mask !== null && { mask }),
    ...(controlImages.length > 0 && { controlImage: controlImages }),
  };
}
