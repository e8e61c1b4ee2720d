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
  /** What `ipAdapter` sees, in its order. */
  ipImages?: readonly File[] | undefined;
}

/** The same of other values. */
export function mapFiles<From, To>(
  { image, mask, controlImages = [], ipImages = [] }: InputFiles<From>,
  map: (file: From) => To,
): InputFiles<To> {
  return {
    ...{ image: image && map(image), mask: mask && map(mask) },
    ...(controlImages.length > 0 && { controlImages: controlImages.map((file) => map(file)) }),
    ...(ipImages.length > 0 && { ipImages: ipImages.map((file) => map(file)) }),
  };
}

/** The same of values that come later. */
export async function awaitFiles<File>(
  files: InputFiles<Promise<File>>,
): Promise<InputFiles<File>> {
  const promises = allFiles(files);
  const values = await Promise.all(promises);
  const known = new Map(promises.map((promise, i) => [promise, values[i]!]));
  return mapFiles(files, (promise) => known.get(promise)!);
}

export function allFiles<File>(files: InputFiles<File>): File[] {
  const { image, mask, controlImages = [], ipImages = [] } = files;
  return [image, mask, ...controlImages, ...ipImages].filter((file) => file !== null);
}

/** null where there are none. */
export function filesOrNull<File>(files: InputFiles<File>): InputFiles<File> | null {
  return allFiles(files).length > 0 ? files : null;
}

/** What a request says of them. */
export function inputSettings<File>(files: InputFiles<File>) {
  const { image, mask, controlImages = [], ipImages = [] } = files;
  return {
    ...(image !== null && { image }),
    ...(mask !== null && { mask }),
    ...(controlImages.length > 0 && { controlImage: controlImages }),
    ...(ipImages.length > 0 && { ipImage: ipImages }),
  };
}
