"""Trains and measures mini-sdxl on a CPU: python tests/reference/train_mini STAGE --out FOLDER

vae, latents and unet train: each reads what the ones before left in FOLDER, and goes on
where it was stopped. export writes the model, measure judges it, check-judge judges the judge.
outlines trains a ControlNet for the model that --model names; the stages on it end in -outlines.
"""

import argparse
import os
import sys

import torch

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

TRAINING = ("vae", "latents", "unet", "outlines")
OTHERS = ("export", "measure", "check-judge", "sheet", "export-outlines", "measure-outlines")


def options_of(arguments):
    parser = argparse.ArgumentParser(prog="train_mini", description=__doc__)
    parser.add_argument("stage", choices=[*TRAINING, *OTHERS])
    parser.add_argument("--out", required=True, help="folder of checkpoints")
    parser.add_argument("--model", help="folder that export writes, others read")
    parser.add_argument("--controlnet", help="folder that export-outlines writes")
    parser.add_argument("--count", type=int, default=40, help="pictures of measure-outlines")
    parser.add_argument("--minutes", type=float, default=25, help="of training, by own time")
    parser.add_argument("--fall", type=float, default=8, help="last minutes, with a falling rate")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--pause-file", help="rests while this file exists")
    return parser.parse_args(arguments)


def train(options):
    from pace import Pace

    if options.stage == "vae":
        from train_autoencoder import train as stage
    elif options.stage == "latents":
        from encode_latents import train as stage
    elif options.stage == "outlines":
        import train_outlines

        def stage(pace, threads):
            train_outlines.train(pace, threads, options.model)
    else:
        from train_denoiser import train as stage
    # Of one operation; the batch is shared out instead.
    torch.set_num_threads(1)
    pace = Pace(options.out, options.stage, options.minutes, options.fall, options.threads,
                options.pause_file)
    stage(pace, options.threads)


def main():
    options = options_of(sys.argv[1:])
    os.makedirs(options.out, exist_ok=True)
    if options.stage in TRAINING:
        train(options)
        return
    torch.set_num_threads(options.threads)
    import measure
    from export import export

    if options.stage == "export":
        export(options.out, options.model)
        return
    if options.stage.endswith("-outlines"):
        of_outlines(options)
        return
    pipe = measure.load_folder(options.model) if options.model else None
    if options.stage == "check-judge":
        measure.check_judge(vae=pipe.vae if pipe else None)
    elif options.stage == "sheet":
        measure.contact_sheet(pipe, os.path.join(options.out, "sheet.png"))
    else:
        measure.measure_autoencoder(pipe.vae)
        measure.measure(pipe, keep=options.out)


def of_outlines(options):
    import measure_outlines
    import train_outlines

    if options.stage == "export-outlines":
        train_outlines.export(options.out, options.controlnet)
    else:
        measure_outlines.measure(options.model, options.controlnet, options.out, options.count)


main()
