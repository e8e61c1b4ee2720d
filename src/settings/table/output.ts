/**
 * Settings (rows of ../table.ts): what the command writes and prints.
 */
import { stepCountMax } from "../../native/abi.ts";
import { pictureProtocols } from "../../terminal/pictures.ts";
import type { Setting } from "../setting.ts";

export const outputSettings = {
  listSchedulers: {
    kind: "boolean",
    flag: "list-schedulers",
    default: false,
    group: "Output",
    help: "Print the samplers, a line each, with their names elsewhere; generate nothing.",
    scope: "command",
    processes: "own",
    json: null,
  },
  plan: {
    kind: "boolean",
    flag: "plan",
    default: false,
    group: "Output",
    help:
      "Print memory and estimated time of each network and pass, from the headers of the files " +
      "alone; load and generate nothing.",
    scope: "command",
    processes: "own",
    json: null,
  },
  outPath: {
    kind: "path",
    flag: "out-path",
    aliases: ["out"],
    names: "file",
    default: "sample.png",
    group: "Output",
    hint: "FILE",
    help:
      "The image: .png, .jpg, .jpeg, .webp or .avif. An existing file is replaced once the " +
      "new one is whole. With --num-images, -1, -2, ... go before the ending. " +
      "Default: sample.png.",
    scope: "command",
    processes: "own",
    // As the path of each image.
    json: null,
  },
  latentsPath: {
    kind: "path",
    flag: "save-latents",
    names: "file",
    extension: ".safetensors",
    group: "Output",
    hint: "FILE",
    help:
      'Also write the latents, a .safetensors file with one f32 NCHW tensor "latents" (N = ' +
      "images, in order), before division by the VAE's scaling factor; after the last " +
      "image. Default: not written.",
    scope: "command",
    processes: "own",
    json: "latents_path",
  },
  previewSteps: {
    kind: "whole",
    flag: "preview",
    min: 1,
    max: stepCountMax,
    group: "Output",
    hint: "N",
    help:
      "Every N steps ({range}), write what the image will be to sample-preview.png beside it: an " +
      "approximation at an eighth of its size, or with --taesd one at its full size; and show it " +
      "in terminals that can (kitty, Ghostty, iTerm, WezTerm, those with sixel). Default: none.",
    scope: "command",
    processes: "own",
    json: null,
  },
  previewProtocol: {
    kind: "choice",
    flag: "preview-protocol",
    names: ["auto", ...pictureProtocols, "none"],
    default: "auto",
    group: "Output",
    hint: "NAME",
    help:
      "How --preview shows pictures in the terminal: {names}. auto goes by the terminal's name, " +
      "or asks it whether it has sixel. Default: auto.",
    scope: "command",
    processes: "own",
    json: null,
  },
  grid: {
    kind: "boolean",
    flag: "grid",
    default: false,
    group: "Output",
    help:
      "Also write a sheet of all images, sample-grid.png, each with its seed, or with its " +
      "prompt where prompts differ.",
    scope: "command",
    processes: "own",
    json: null,
  },
  xyz: {
    kind: "text",
    flag: "xyz",
    group: "Output",
    hint: "AXES",
    help:
      "An image for every combination of values, and their sheet, sample-grid.png: " +
      '"steps=10,20;guidance=4,7", up to three axes, by the names of flags; also sampler, size, ' +
      'sr (search,replacement,... in the prompts) and lora-scale. Ranges: 1-5, "1-10 (+3)", ' +
      '"1-10 [4]"; quotes around a value with a comma. Default: none.',
    scope: "command",
    processes: "own",
    json: null,
  },
  cells: {
    kind: "boolean",
    flag: "cells",
    default: true,
    group: "Output",
    help: "With --xyz, write the sheet alone. Default: each image too, as sample-1.png, ...",
    scope: "command",
    processes: "own",
    json: null,
  },
  metadata: {
    kind: "boolean",
    flag: "metadata",
    default: true,
    group: "Output",
    help:
      "Write no parameters into images. Default: they carry A1111's text (parameters, or the " +
      "comment of EXIF), with hashes of models, and what --from-image needs to repeat them.",
    scope: "command",
    processes: "own",
    json: null,
  },
  verbose: {
    kind: "boolean",
    flag: "verbose",
    default: false,
    group: "Output",
    help: "Say more: devices, sizes, times; and the stack of an unexpected error.",
    scope: "command",
    processes: "own",
    json: null,
  },
  quiet: {
    kind: "boolean",
    flag: "quiet",
    default: false,
    group: "Output",
    help: "Print nothing but errors, a random seed, and the object of --json.",
    scope: "command",
    processes: "own",
    json: null,
  },
  json: {
    kind: "boolean",
    flag: "json",
    default: false,
    group: "Output",
    help:
      "Print one JSON object on stdout: path and seed of the first image (a seed is a string, " +
      "since 2^63-1 does not fit a JSON number), images with those of each, prompt, size, steps, " +
      'ranks, device, timings in ms, warnings; or an object "error" with code and message.',
    scope: "command",
    processes: "own",
    json: null,
  },
} as const satisfies Readonly<Record<string, Setting>>;
