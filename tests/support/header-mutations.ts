/**
 * Safetensors headers that are nearly right: valid ones with bytes changed and pieces of JSON put
 * in, for tests that compare or survive parsers.
 */
import fc from "fast-check";

/** Valid entries of a header, with what parsers disagree about most: numbers, text, nesting. */
const entries = [
  '"a":{"dtype":"F16","shape":[2,3],"data_offsets":[0,12]}',
  '"b":{"dtype":"F8_E4M3","shape":[],"data_offsets":[12,13]}',
  '"c":{"shape":[0,18446744073709551615],"data_offsets":[13,13],"dtype":"odd"}',
  '"__metadata__":{"format":"pt","x":{"y":[1,-0.5e+3,true,null]}}',
  '"\\u0061\\ud83d\\ude00é":{"dtype":"I64","shape":[1],"data_offsets":[16,24],"more":[{}]}',
];

/** Pieces that are put in somewhere. */
const pieces = [
  ...'{}[]:,"\\ \n\t\0-+.eE0123456789',
  ...["true", "null", "1.0", "-0", "01", "1e3", "9007199254740993", "18446744073709551616"],
  ...['"dtype":"F32",', '"shape":[1],', '"data_offsets":[0,2],', '"__metadata__":1,', '"a":{},'],
  ...['"\\ud800"', '"\\ud83d\\ude00"', '"\\udc00"', '"\\x"', '"\\u12"', "\x7f", "\ufeff", "é"],
  ...["[".repeat(125), "[".repeat(130), "]".repeat(125), '{"a":'.repeat(127)],
].map((piece) => Buffer.from(piece));

/** Bytes that are no UTF-8, or the longest and shortest of their length. */
const bytes = [0, 0x1f, 0x20, 0x7f, 0x80, 0xbf, 0xc0, 0xc2, 0xe0, 0xed, 0xef, 0xf0, 0xf4, 0xff];

const edit = fc.tuple(fc.nat(400), fc.nat(2), fc.nat(1000));

/** The entries of a header, without the braces around them; and bytes of data behind. */
export const mutatedEntries: fc.Arbitrary<Buffer> = fc
  .tuple(fc.subarray(entries, { minLength: 1 }), fc.array(edit, { maxLength: 3 }))
  .map(([chosen, edits]) => {
    let text = Buffer.from(chosen.join(","));
    for (const [place, how, which] of edits) {
      const at = place % (text.length + 1);
      const [before, after] = [text.subarray(0, at), text.subarray(at)];
      const piece = pieces[which % pieces.length]!;
      if (how === 0) text = Buffer.concat([before, piece, after]);
      else if (how === 1) text = Buffer.concat([before, after.subarray(1 + (which % 8))]);
      else
        text = Buffer.concat([before, Buffer.of(bytes[which % bytes.length]!), after.subarray(1)]);
    }
    return text;
  });

/** Bytes that the entries' tensors take, if nothing is changed. */
export const mutatedDataBytes = 24;
