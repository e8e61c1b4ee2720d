/**
 * EXIF in AVIF files: an item of its own that describes the image's, with its bytes at the end of
 * the file. Source: ISO/IEC 14496-12 (boxes, item locations), 23008-12 annex A (the item Exif).
 */
import type { FileSlices } from "./file-slices.ts";

/** `avif` with EXIF; null where the file is built in a way that no encoder here builds it. */
export function withAvifExif(avif: Uint8Array, exif: Uint8Array): Uint8Array | null {
  const bytes = Buffer.from(avif.buffer, avif.byteOffset, avif.byteLength);
  const top = boxesIn(bytes);
  const meta = top.find(({ type }) => type === "meta");
  const parts = meta && boxesIn(meta.data.subarray(4));
  const find = (name: string) => parts?.find(({ type }) => type === name)?.data;
  const [locations, infos, primary] = [find("iloc"), find("iinf"), find("pitm")];
  if (!meta || !parts || !locations || !infos || !primary || find("iref")) return null;
  const items = itemsIn(locations);
  if (items === null || infos[0] !== 0 || primary[0] !== 0) return null;
  const id = Math.max(...items.map((item) => item.id)) + 1;
  const payload = Buffer.concat([Buffer.alloc(4), exif]);

  const build = (shift: number, at: number) => {
    const moved = items.map(({ id: own, extents }) => {
      const later = extents.map(({ at: old, length }) => ({ at: old + shift, length }));
      return { id: own, extents: later };
    });
    const own = { id, extents: [{ at, length: payload.length }] };
    const rebuilt = parts.map(({ type, data }) => {
      if (type === "iloc") return box("iloc", locationsOf([...moved, own]));
      if (type === "iinf") return box("iinf", withInfo(data, id));
      return box(type, data);
    });
    const reference = box("cdsc", Buffer.concat([u16(id), u16(1), primary.subarray(4, 6)]));
    const head = meta.data.subarray(0, 4);
    return box("meta", Buffer.concat([head, ...rebuilt, box("iref", Buffer.alloc(4), reference)]));
  };
  // Places do not change the length.
  const growth = build(0, 0).length - (meta.data.length + 8);
  const grown = build(growth, bytes.length + growth + 8);
  const whole = top.map((each) => (each === meta ? grown : box(each.type, each.data)));
  return Buffer.concat([...whole, box("mdat", payload)]);
}

export function isAvif(start: Buffer): boolean {
  return start.toString("latin1", 4, 8) === "ftyp" && /avi[fs]|mif1/.test(start.toString("latin1"));
}

/** The EXIF of the file; null where it has none. */
export function readAvifExif(file: FileSlices): Buffer | null {
  let at = 0;
  for (let count = 0; at + 8 <= file.size && count < boxCountMax; count++) {
    const head = file.read(at, 8);
    const length = head.readUInt32BE(0);
    if (length < 8) return null;
    if (head.toString("latin1", 4, 8) !== "meta") {
      at += length;
      continue;
    }
    if (length > metaBytesMax) return null;
    const parts = boxesIn(file.read(at + 8, length - 8).subarray(4));
    const find = (name: string) => parts.find(({ type }) => type === name)?.data;
    const id = exifItemOf(find("iinf"));
    const extent = itemsIn(find("iloc"))?.find((item) => item.id === id)?.extents[0];
    if (id === null || extent === undefined || extent.length > metaBytesMax) return null;
    const bytes = file.read(extent.at, extent.length);
    return bytes.length < 4 ? null : bytes.subarray(4 + bytes.readUInt32BE(0));
  }
  return null;
}

// --- internal ---

interface Box {
  type: string;
  data: Buffer;
}

interface Item {
  id: number;
  /** Places in the file. */
  extents: { at: number; length: number }[];
}

const boxCountMax = 10_000;
const metaBytesMax = 2 ** 25;

/** Boxes one behind the other, as far as they are whole. */
function boxesIn(bytes: Buffer): Box[] {
  const boxes: Box[] = [];
  let at = 0;
  while (at + 8 <= bytes.length && boxes.length < boxCountMax) {
    const length = bytes.readUInt32BE(at);
    if (length < 8 || at + length > bytes.length) break;
    const type = bytes.toString("latin1", at + 4, at + 8);
    boxes.push({ type, data: bytes.subarray(at + 8, at + length) });
    at += length;
  }
  return boxes;
}

/** Where items lie; null for places that are no plain offsets in the file, and for damage. */
function itemsIn(data: Buffer | undefined): Item[] | null {
  if (data === undefined || data.length < 8) return null;
  const version = data[0]!;
  if (version > 2) return null;
  const [offsetSize, lengthSize] = [data[4]! >> 4, data[4]! & 15];
  const [baseSize, indexSize] = [data[5]! >> 4, version > 0 ? data[5]! & 15 : 0];
  let at = 6;
  const take = (size: number) => {
    if (at + size > data.length) throw new RangeError("the box is cut off");
    let value = 0;
    for (const end = at + size; at < end; at++) value = value * 256 + data[at]!;
    return value;
  };
  try {
    const wide = version === 2 ? 4 : 2;
    return Array.from({ length: Math.min(take(wide), boxCountMax) }, () => {
      const id = take(wide);
      if (version > 0 && (take(2) & 15) !== 0) throw new RangeError("it is in another box");
      take(2);
      const base = take(baseSize);
      const extents = Array.from({ length: Math.min(take(2), boxCountMax) }, () => {
        take(indexSize);
        const offset = base + take(offsetSize);
        return { at: offset, length: take(lengthSize) };
      });
      return { id, extents };
    });
  } catch {
    return null;
  }
}

function exifItemOf(data: Buffer | undefined): number | null {
  if (data === undefined || data.length < 6) return null;
  const entries = boxesIn(data.subarray(data[0] === 0 ? 6 : 8));
  for (const { data: info } of entries) {
    const idBytes = info[0] === 3 ? 4 : 2;
    const typeAt = 4 + idBytes + 2;
    if (info.toString("latin1", typeAt, typeAt + 4) === "Exif") return info.readUIntBE(4, idBytes);
  }
  return null;
}

function locationsOf(items: readonly Item[]): Buffer {
  const entries = items.map(({ id, extents }) =>
    Buffer.concat([
      ...[u16(id), u16(0), u16(extents.length)],
      ...extents.flatMap(({ at, length }) => [u32(at), u32(length)]),
    ]),
  );
  // Version 0, four bytes for offsets and lengths, none for a base.
  return Buffer.concat([Buffer.from([0, 0, 0, 0, 0x44, 0]), u16(items.length), ...entries]);
}

function withInfo(data: Buffer, id: number): Buffer {
  const name = Buffer.from("Exif\0", "latin1");
  const info = box("infe", Buffer.from([2, 0, 0, 0]), u16(id), u16(0), name);
  const count = data.readUInt16BE(4) + 1;
  return Buffer.concat([data.subarray(0, 4), u16(count), data.subarray(6), info]);
}

function box(type: string, ...parts: Uint8Array[]): Buffer {
  const data = Buffer.concat(parts);
  return Buffer.concat([u32(8 + data.length), Buffer.from(type, "latin1"), data]);
}

function u16(value: number): Buffer {
  const bytes = Buffer.alloc(2);
  bytes.writeUInt16BE(value);
  return bytes;
}

function u32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
}
