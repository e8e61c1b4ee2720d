/**
 * Files that hold weights in another format than safetensors, or no weights at all, by their first
 * bytes and their names: what each is, and how to get a file that can be read.
 */

/** Both parts follow the path: `${path} ${what}; ${advice}.` */
interface ForeignFormat {
  what: string;
  advice: string;
}

/**
 * The foreign format of the file at `path`, which begins with `head`; null for what may be
 * safetensors, whatever its name.
 */
export function foreignFormat(path: string, head: Buffer): ForeignFormat | null {
  const unfinished = unfinishedNames.find(({ pattern }) => pattern.test(path));
  if (unfinished !== undefined) return unfinished;
  // Byte 8 opens the header of a safetensors file, whatever its length looks like.
  if (head[8] === openingBrace && head[0] !== openingBrace) return null;
  return (
    contents.find(({ matches }) => matches(head)) ??
    endings.find(({ pattern }) => pattern.test(path)) ??
    null
  );
}

// --- internal ---

const openingBrace = 0x7b;

const getSafetensors = "get the model as a .safetensors file";

const pickled = {
  what: "holds pickled weights, which are not read because they can run code",
  advice:
    "get its .safetensors file, which most sites offer beside it, or convert it where you trust " +
    "it: a checkpoint by diffusers' from_single_file(FILE).save_pretrained(FOLDER), others by " +
    "safetensors.torch.save_file(torch.load(FILE, weights_only=True), NEW)",
};
const gguf = {
  what: "is a GGUF file, whose quantized blocks are not read",
  advice: `${getSafetensors}; those with 8-bit weights (fp8) are read too, and are half as large`,
};
const onnx = {
  what: "is an ONNX graph, which is not read",
  advice: `${getSafetensors}: the repository that it was made from has one`,
};
const engine = {
  what: "is a TensorRT engine, which is compiled for one kind of GPU and not read",
  advice: `${getSafetensors}: the model that the engine was built from`,
};
const archive = (name: string) => ({
  what: `is a ${name} archive, not a model`,
  advice: "unpack it and name the .safetensors file in it",
});
const otherWeights = (name: string) => ({
  what: `holds weights of ${name}, which are not read`,
  advice: getSafetensors,
});
const picture = { what: "is a picture, not a model", advice: getSafetensors };
interface NamedFormat extends ForeignFormat {
  pattern: RegExp;
}

const startsWith = (text: string) => {
  const bytes = Buffer.from(text, "latin1");
  return (head: Buffer) => head.subarray(0, bytes.length).equals(bytes);
};

const isZip = startsWith("PK\x03\x04");

/** PyTorch's files are zip archives with a `data.pkl` among the first entries. */
function isTorchZip(head: Buffer): boolean {
  return isZip(head) && /(data\.pkl|\.format_version|byteorder)/.test(head.toString("latin1"));
}

function isPickle(head: Buffer): boolean {
  return head[0] === 0x80 && head[1]! >= 2 && head[1]! <= 5;
}

function isTar(head: Buffer): boolean {
  return head.subarray(257, 262).toString("latin1") === "ustar";
}

function isText(head: Buffer): boolean {
  return head.subarray(0, 8).every((byte) => byte >= 32 || (byte >= 9 && byte <= 13));
}

const contents: readonly (ForeignFormat & { matches(head: Buffer): boolean })[] = [
  { matches: isTorchZip, ...pickled },
  { matches: isPickle, ...pickled },
  { matches: isZip, ...archive("zip") },
  { matches: startsWith("GGUF"), ...gguf },
  { matches: startsWith("ftrt"), ...engine },
  { matches: startsWith("ptrt"), ...engine },
  { matches: startsWith("7z\xbc\xaf\x27\x1c"), ...archive("7z") },
  { matches: startsWith("Rar!"), ...archive("rar") },
  { matches: startsWith("\x1f\x8b"), ...archive("gzip") },
  { matches: startsWith("\x28\xb5\x2f\xfd"), ...archive("zstd") },
  { matches: startsWith("\xfd7zXZ\0"), ...archive("xz") },
  { matches: isTar, ...archive("tar") },
  { matches: startsWith("\x89HDF"), ...otherWeights("Keras (HDF5)") },
  { matches: startsWith("\x89PNG"), ...picture },
  { matches: startsWith("\xff\xd8\xff"), ...picture },
  { matches: (head) => head.subarray(8, 12).toString("latin1") === "WEBP", ...picture },
  {
    matches: startsWith("# xet version"),
    what: "is a pointer of git-xet, not the file that it stands for",
    advice: "run `git xet checkout` in the model's folder, or get the model with `basedxl pull`",
  },
  {
    matches: (head) => isText(head) && /^\s*\{\s*"(error|message|detail)"/.test(head.toString()),
    what: "is the answer of a web site that refused the download, not a model",
    advice: "log in there (or give your API key) and download the file again",
  },
];

const unfinishedNames: readonly NamedFormat[] = [
  {
    pattern: /\.(part|partial|crdownload|download|incomplete|opdownload|!ut|tmp)$/i,
    what: "is an unfinished download",
    advice: "let it finish, or download the file again",
  },
  {
    pattern: /\.aria2$/i,
    what: "is the control file of an unfinished download by aria2",
    advice: "run aria2c again to finish it",
  },
];

const endings: readonly NamedFormat[] = [
  { pattern: /\.(ckpt|pt|pt2|pth|bin|pkl|pickle)$/i, ...pickled },
  { pattern: /\.gguf$/i, ...gguf },
  { pattern: /\.onnx$/i, ...onnx },
  { pattern: /\.(engine|trt)$/i, ...engine },
  { pattern: /\.(zip|7z|rar|tar|gz|tgz|xz|zst)$/i, ...archive("compressed") },
  { pattern: /\.(h5|hdf5|keras)$/i, ...otherWeights("Keras") },
  { pattern: /\.msgpack$/i, ...otherWeights("Flax") },
];
