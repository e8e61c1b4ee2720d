/**
 * Text chunks of PNG files: written before the pixels, which stay as they are; read with limits,
 * one chunk at a time. Source: PNG (Third Edition), 11.3.3 Textual information.
 */
import { inflateSync } from "node:zlib";
import type { FileSlices } from "./file-slices.ts";

/**
 * `png` with texts by keyword: tEXt where a text is Latin-1, else iTXt, as Pillow does, which
 * A1111 writes with.
 */
export function withPngTexts(png: Uint8Array, texts: readonly [string, string][]): Uint8Array {
  const bytes = Buffer.from(png.buffer, png.byteOffset, png.byteLength);
  let at = signature.length;
  while (at + 8 <= bytes.length && bytes.toString("latin1", at + 4, at + 8) !== "IDAT") {
    at += 12 + bytes.readUInt32BE(at);
  }
  const chunks = texts.map(([keyword, text]) => textChunk(keyword, text.replaceAll("\0", "")));
  return Buffer.concat([bytes.subarray(0, at), ...chunks, bytes.subarray(at)]);
}

export function isPng(start: Buffer): boolean {
  return start.subarray(0, signature.length).equals(signature);
}

/**
 * The text chunks by keyword, the first of each. `onProblem` gets what is left out, as in "its
 * zTXt chunk is damaged".
 */
export function readPngTexts(
  file: FileSlices,
  onProblem: (what: string) => void,
): Map<string, string> {
  const texts = new Map<string, string>();
  let at = signature.length;
  let room = textBytesMax;
  for (let count = 0; at + 12 <= file.size && count < chunkCountMax; count++) {
    const head = file.read(at, 8);
    const length = head.readUInt32BE(0);
    const type = head.toString("latin1", 4, 8);
    if (type === "IEND") break;
    if (at + 12 + length > file.size) {
      onProblem("it is cut off");
      break;
    }
    if (type === "eXIf" || type === "tEXt" || type === "zTXt" || type === "iTXt") {
      const found = length > room ? `its ${type} chunk has ${length} bytes` : null;
      const text = found ?? readChunk(type, file.read(at + 8, length), room);
      if (typeof text === "string") onProblem(text);
      else if (!texts.has(text.keyword)) {
        texts.set(text.keyword, text.text);
        room -= text.text.length;
      }
    }
    at += 12 + length;
  }
  return texts;
}

// --- internal ---

const signature = Buffer.from("\x89PNG\r\n\x1a\n", "latin1");
/** Of all texts together; workflows of ComfyUI have up to a few MB. */
const textBytesMax = 2 ** 25;
const chunkCountMax = 1_000_000;

function textChunk(keyword: string, text: string): Buffer {
  const isLatin1 = !/[^\0-\xff]/.test(text);
  if (isLatin1) return chunk("tEXt", Buffer.from(`${keyword}\0${text}`, "latin1"));
  // Not compressed, no language, no translated keyword.
  return chunk("iTXt", Buffer.from(`${keyword}\0\0\0\0\0${text}`, "utf8"));
}

function chunk(type: string, data: Buffer): Buffer {
  const bytes = Buffer.alloc(12 + data.length);
  bytes.writeUInt32BE(data.length, 0);
  bytes.write(type, 4, "latin1");
  data.copy(bytes, 8);
  bytes.writeUInt32BE(Bun.hash.crc32(bytes.subarray(4, 8 + data.length)), 8 + data.length);
  return bytes;
}

/** The text of a chunk, or what is wrong with it. */
function readChunk(
  type: string,
  data: Buffer,
  room: number,
): { keyword: string; text: string } | string {
  if (type === "eXIf") return { keyword: exifKeyword, text: data.toString("latin1") };
  const end = data.indexOf(0);
  const damaged = `its ${type} chunk is damaged`;
  if (end < 1 || end > 79) return damaged;
  const keyword = data.toString("latin1", 0, end);
  const inflate = (bytes: Buffer) => inflateSync(bytes, { maxOutputLength: Math.max(1, room) });
  try {
    if (type === "tEXt") return { keyword, text: data.toString("latin1", end + 1) };
    if (type === "zTXt") {
      return { keyword, text: inflate(data.subarray(end + 2)).toString("latin1") };
    }
    const isCompressed = data[end + 1] === 1;
    const language = data.indexOf(0, end + 3);
    const translated = language < 0 ? -1 : data.indexOf(0, language + 1);
    if (translated < 0) return damaged;
    const rest = data.subarray(translated + 1);
    return { keyword, text: (isCompressed ? inflate(rest) : rest).toString("utf8") };
  } catch (error) {
    const isHuge = (error as NodeJS.ErrnoException).code === "ERR_BUFFER_TOO_LARGE";
    return isHuge ? `its ${type} chunk is larger than ${room} bytes` : damaged;
  }
}

/** No keyword of a text: the bytes of EXIF, a letter for each. */
export const exifKeyword = "\0exif";
