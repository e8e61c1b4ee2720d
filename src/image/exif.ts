/**
 * The little of EXIF that carries texts: a user comment, as A1111 and its readers know it, and a
 * maker note with the program's own text. Reading takes texts of every tag, in either byte order.
 * Source: CIPA DC-008 (Exif 2.32), TIFF 6.0.
 */

/** Texts of an image, by what they are for. */
export interface ImageTexts {
  /** As A1111 writes it. */
  parameters: string;
  /** JSON of this program; absent for a sheet of images. */
  own?: string;
}

/** Stands before this program's JSON in the maker note. */
export const ownMark = "basedxl\0";

/** A TIFF structure with both texts, as it stands behind "Exif\0\0" in a JPEG. */
export function encodeExif({ parameters, own = "" }: ImageTexts): Uint8Array {
  const note = Buffer.from(ownMark + own, "utf8");
  // Big-endian as the whole structure, as piexif writes it.
  const comment = Buffer.concat([
    Buffer.from("UNICODE\0", "latin1"),
    Buffer.from(parameters, "utf16le").swap16(),
  ]);
  const ifd0 = 8;
  const exif = ifd0 + directoryBytes(1);
  const noteAt = exif + directoryBytes(2);
  const commentAt = noteAt + even(note.length);
  const bytes = Buffer.alloc(commentAt + comment.length);
  bytes.write("MM\0*", 0, "latin1");
  bytes.writeUInt32BE(ifd0, 4);
  writeDirectory(bytes, ifd0, [[tags.exif, types.long, 1, exif]]);
  writeDirectory(bytes, exif, [
    [tags.makerNote, types.undefined, note.length, noteAt],
    [tags.userComment, types.undefined, comment.length, commentAt],
  ]);
  note.copy(bytes, noteAt);
  comment.copy(bytes, commentAt);
  return bytes;
}

/**
 * The texts in a TIFF structure, by the names of their tags ("UserComment") or numbers ("0x010e").
 * What is damaged is left out.
 */
export function decodeExif(bytes: Buffer): Map<string, string> {
  const texts = new Map<string, string>();
  const start = bytes.toString("latin1", 0, 6) === "Exif\0\0" ? 6 : 0;
  const tiff = bytes.subarray(start);
  const order = tiff.toString("latin1", 0, 2);
  if (tiff.length < 8 || (order !== "II" && order !== "MM")) return texts;
  const isBig = order === "MM";
  const u16 = (at: number) => (isBig ? tiff.readUInt16BE(at) : tiff.readUInt16LE(at));
  const u32 = (at: number) => (isBig ? tiff.readUInt32BE(at) : tiff.readUInt32LE(at));
  const waiting = [u32(4)];
  const seen = new Set<number>();
  for (let at = waiting.pop(); at !== undefined; at = waiting.pop()) {
    if (seen.has(at) || seen.size === directoryCountMax || at + 2 > tiff.length) continue;
    seen.add(at);
    const count = Math.min(u16(at), Math.floor((tiff.length - at - 2) / 12));
    for (let index = 0; index < count; index++) {
      const entry = at + 2 + index * 12;
      const tag = u16(entry);
      if (tag === tags.exif) waiting.push(u32(entry + 8));
      const value = bytesOf(tiff, entry, { type: u16(entry + 2), count: u32(entry + 4), u32 });
      if (value === null) continue;
      const name = tag === tags.userComment ? "UserComment" : tagName(tag);
      const isComment = tag === tags.userComment;
      if (!texts.has(name)) texts.set(name, isComment ? commentOf(value, isBig) : textOf(value));
    }
  }
  return texts;
}

// --- internal ---

const tags = { exif: 0x8769, makerNote: 0x927c, userComment: 0x9286 } as const;
const types = { byte: 1, ascii: 2, long: 4, undefined: 7, utf8: 129 } as const;
/** Programs write three or four. */
const directoryCountMax = 16;

type Entry = readonly [tag: number, type: number, count: number, value: number];

function directoryBytes(count: number): number {
  return 2 + 12 * count + 4;
}

function even(length: number): number {
  return length + (length % 2);
}

function writeDirectory(bytes: Buffer, at: number, entries: readonly Entry[]): void {
  bytes.writeUInt16BE(entries.length, at);
  for (const [index, [tag, type, count, value]] of entries.entries()) {
    const entry = at + 2 + index * 12;
    bytes.writeUInt16BE(tag, entry);
    bytes.writeUInt16BE(type, entry + 2);
    bytes.writeUInt32BE(count, entry + 4);
    bytes.writeUInt32BE(value, entry + 8);
  }
}

/** The bytes of an entry that may be a text; null for numbers and what lies outside. */
function bytesOf(
  tiff: Buffer,
  entry: number,
  { type, count, u32 }: { type: number; count: number; u32: (at: number) => number },
): Buffer | null {
  const isText = [types.byte, types.ascii, types.undefined, types.utf8].some((t) => t === type);
  if (!isText || count === 0) return null;
  const at = count <= 4 ? entry + 8 : u32(entry + 8);
  return at + count <= tiff.length ? tiff.subarray(at, at + count) : null;
}

function tagName(tag: number): string {
  return tag === tags.makerNote ? "MakerNote" : `0x${tag.toString(16).padStart(4, "0")}`;
}

function textOf(value: Buffer): string {
  return value.toString("utf8").replace(/\0+$/, "");
}

/** A user comment begins with 8 bytes that name its encoding; some programs leave them out. */
function commentOf(value: Buffer, isBig: boolean): string {
  const code = value.toString("latin1", 0, 8);
  const rest = value.subarray(8);
  if (code === "UNICODE\0") return utf16(rest, isBig);
  if (code === "ASCII\0\0\0" || code === "\0\0\0\0\0\0\0\0") return textOf(rest);
  return textOf(value);
}

/** The order of bytes is the structure's; some programs differ, which plain letters show. */
function utf16(bytes: Buffer, isBig: boolean): string {
  const little = Buffer.from(bytes.subarray(0, bytes.length & ~1));
  const big = Buffer.from(little).swap16();
  const [own, other] = [isBig ? big : little, isBig ? little : big].map((each) =>
    each.toString("utf16le").replace(/^\ufeff|\0+$/g, ""),
  ) as [string, string];
  return !/[\n -~]/.test(own) && /[\n -~]/.test(other) ? other : own;
}
