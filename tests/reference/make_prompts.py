"""Records how A1111 (Forge) and ComfyUI read prompts: tests/fixtures/prompts.*.

Their own parsers, chunking and weights run here, on the golden model's tokenizers and encoders;
only hashes of pieces, ids and schedules are kept, and thinned states. The model must exist:
`bun run fixtures`. Needs lark and clones of both:
python tests/reference/make_prompts.py sd-webui-forge-classic ComfyUI
"""

import hashlib
import json
import os
import random
import re
import struct
import subprocess
import sys
import tempfile
import types

import torch
from harness import load_pipeline, save
from safetensors.torch import save_file
from thin import formula_input

GOLDEN = "tests/fixtures/golden"
# Vectors of each embedding, in both encoders.
EMBEDDINGS = {"blotstyle": 3, "badmood": 12}
STEPS = 12
STATES = {
    "weights": "a (red:1.4) circle, [above] a ((blue)) square",
    "chunks": "a (red:0.7) circle, " * 20 + "BREAK a [blue] square",
    "negative": "a (red:-0.5) circle (above:0) a square",
    "turns": "a [(red:1.5):[blue]:0.4] circle",
}
MODES = {
    "weights": ["original", "no_norm", "interpolate"],
    "chunks": ["original", "interpolate"],
    "negative": ["interpolate"],
    "turns": ["original"],
}

# Cases of the parsers' own documentation, and others that they read in odd ways.
GIVEN = [
    "", " ", "a red circle", "a red circle!", "(a)", "((a))", "(a:1.2)", "(a: 1.2 )", "[a]", "[[a]]",
    "an (important) word", "(unbalanced", "unbalanced)", "[unbalanced", "unbalanced]", ")(", "][",
    "\\(literal\\]", "(unnecessary)(parens)", "a \\\\ b", "a \\ b", "\\", "((a\\))", "(a\\:1.2)", "(:1.2)", "()",
    "a (((house:1.3)) [on] a (hill:0.5), sun, (((sky))).", "(a:-1) BREAK b", "(a BREAK b:1.2)",
    "BREAK", "a BREAK", "BREAK a", "a BREAK BREAK b", "aBREAK", "BREAKé", "a\nBREAK\tb", "break",
    "(a:1.2:1.3)", "a:1.2)", "(a:1e3)", "(a:+.5)", "(a:1_0)", "(a:0)", "(a (b:2) c:3)", "(a) (b)c(d)",
    "( a :1.2)", "(a,b:1.1), c", "(a:1.0)", "(a:1)", "(a:1.2 )", "(a:\t1.2)", "((a:1.2):1.3)", "a, , b",
    "test", "a [b:3]", "a [b: 3]", "a [[[b]]:2]", "[(a:2):3]", "a [b : c : 1] d", "a[b:[c:d:2]:1]e",
    "a [unbalanced", "a [b:.5] c", "a [{b|d{:.5] c", "((a][:b:c [d:3]", "[a|(b:1.1)]", "[fe|]male",
    "[fe|||]male", "a [b:1.5] c", "[a:b:0.4]", "[a::0.4]", "[a:0.4]", "[a:b:0]", "[a:b:1]", "[a:b:20]",
    "[a:b:-1]", "[a:b:c:0.5]", "[a|b|c] [d:e:0.5]", "[[a|b]:c:0.5]", "[(a|b)|c]", "(a|b)", "a|b", "[|]",
    "[a:b :0.5]", "[a:b: 0.5 ]", "[:0.5]", "[::0.5]", "[a\\:b:0.5]", "[a:b:1e-1]", "(a [b:c:0.3]:1.3)",
    "a AND b", "a:1.2 AND b:0.5", "a AND", "AND", "AND b :-1", "aANDb", "a and b", "[a AND b:0.5]",
    "[a:b:0.5] AND [c|d]", "blotstyle", "a (blotstyle:1.2), b", "a blotstyle, blotstyle",
    "red " * 73 + "blotstyle and", "red " * 75, "red " * 76, "red " * 60 + ", " + "blue " * 16,
    "red " * 50 + ", " + "blue " * 30, "red, " * 38, "red " * 70 + "(badmood:1.1) blue", "! " * 80,
    "red " * 70 + "(a blue square dog light:1.1)", "red " * 70 + "(a b c d e f g h i:1.1)",
]


def module(repository, path, name):
    """A file of a repository as a module, whatever it imports being there already."""
    source = subprocess.check_output(["git", "-C", repository, "show", f"HEAD:{path}"], text=True)
    made = types.ModuleType(name)
    made.__file__ = path
    sys.modules[name] = made
    if "." in name:
        setattr(sys.modules[name.rpartition(".")[0]], name.rpartition(".")[2], made)
    exec(compile(source, path, "exec"), made.__dict__)
    return made


def stub(name, **values):
    made = types.ModuleType(name)
    made.__dict__.update(values)
    sys.modules[name] = made
    if "." in name:
        setattr(sys.modules[name.rpartition(".")[0]], name.rpartition(".")[2], made)
    return made


def digest(parts):
    return hashlib.sha256(b"".join(parts)).hexdigest()[:6]


def pieces_digest(pieces):
    return digest(text.encode() + b"\0" + struct.pack("<d", weight) for text, weight in pieces)


def chunks_digest(chunks):
    """Chunks of each encoder: lists of (id, weight). "-" for none."""
    if chunks is None:
        return "-"
    flat = [pair for encoder in chunks for chunk in encoder for pair in chunk]
    return digest(struct.pack("<if", id_, weight) for id_, weight in flat)


class A1111:
    def __init__(self, repository, pipeline):
        self.opts = types.SimpleNamespace(
            emphasis="Original",
            comma_padding_backtrack=20,
            textual_inversion_add_hashes_to_infotext=False,
        )
        stub("modules")
        stub("modules.devices", device="cpu")
        stub("modules.sd_hijack", StableDiffusionModelHijack=object)
        stub("modules.shared", opts=self.opts)
        self.parser = module(repository, "modules/prompt_parser.py", "modules.prompt_parser")
        module(repository, "modules/sd_emphasis.py", "modules.sd_emphasis")
        clip = module(repository, "modules/sd_hijack_clip.py", "modules.sd_hijack_clip")
        self.tokenizer = pipeline.tokenizer
        encoders = [pipeline.text_encoder, pipeline.text_encoder_2]
        pads = [pipeline.tokenizer.pad_token_id, pipeline.tokenizer_2.pad_token_id]
        self.encoders = [self.encoder(clip, *each) for each in zip(encoders, pads)]
        self.vocabularies = [encoder.config.vocab_size for encoder in encoders]

    def encoder(self, clip, model, pad):
        class Encoder(clip.FrozenCLIPEmbedderWithCustomWords):
            def encode_with_transformers(self, tokens):
                output = model(tokens, output_hidden_states=True)
                z = output.hidden_states[-2]
                z.pooled = output[0]
                return z

        wrapped = types.SimpleNamespace(tokenizer=self.tokenizer, return_pooled=True)
        hijack = types.SimpleNamespace(embedding_db=self, extra_generation_params={})
        made = Encoder(wrapped, hijack)
        made.wrapped, made.id_pad = wrapped, pad
        return made

    def find_embedding_at_position(self, tokens, offset):
        for name, count in EMBEDDINGS.items():
            ids = self.tokenizer(name, add_special_tokens=False)["input_ids"]
            if tokens[offset : offset + len(ids)] == ids:
                return types.SimpleNamespace(vectors=count, name=name), len(ids)
        return None, None

    def chunks(self, text):
        first = {}
        encoded = []
        for encoder, vocabulary in zip(self.encoders, self.vocabularies):
            next_id = vocabulary
            chunks, _ = encoder.tokenize_line(text)
            for chunk in chunks:
                for offset, embedding in chunk.fixes:
                    place = chunk.tokens[1 + offset : 1 + offset + embedding.vectors]
                    if any(place):
                        # A1111 loses an embedding that it moves to the next chunk behind a comma.
                        return None
                    # The rows of an embedding begin where it is mentioned first.
                    key = (vocabulary, embedding.name)
                    if key not in first:
                        first[key] = next_id
                        next_id += embedding.vectors
                    for i in range(embedding.vectors):
                        chunk.tokens[1 + offset + i] = first[key] + i
                end = chunk.tokens.index(encoder.id_end)
                chunk.tokens[end + 1 :] = [encoder.id_pad] * (76 - end)
            encoded.append([list(zip(c.tokens, c.multipliers)) for c in chunks])
        return encoded

    def schedule(self, text):
        return self.parser.get_learned_conditioning_prompt_schedules([text], STEPS)[0]

    def states(self, text, emphasis):
        """(prompts, tokens, channels) of all prompts that take turns, and their pooled outputs."""
        self.opts.emphasis = emphasis
        texts = [each for _, each in self.schedule(text)]
        (first, _), (second, pooled) = [encoder(texts) for encoder in self.encoders]
        self.opts.emphasis = "Original"
        return torch.cat([first, second], -1), pooled


class ComfyUI:
    def __init__(self, repository, pipeline):
        stub("comfy")
        stub("comfy.ops")
        stub("comfy.model_management", intermediate_device=lambda: "cpu")
        stub("comfy.clip_model", CLIPTextModel=object)
        self.clip = module(repository, "comfy/sd1_clip.py", "comfy.sd1_clip")
        self.pipeline = pipeline
        folder = tempfile.mkdtemp()
        models = [pipeline.text_encoder, pipeline.text_encoder_2]
        keys = ["clip_l", "clip_g"]
        self.rows = {}
        for name, count in EMBEDDINGS.items():
            rows = {
                key: formula_input(f"{name}.{key}", (count, model.config.hidden_size), 0.25)
                for key, model in zip(keys, models)
            }
            save_file(rows, os.path.join(folder, f"{name}.safetensors"))
            for key, tensor in rows.items():
                self.rows |= {tuple(row.tolist()): (name, i) for i, row in enumerate(tensor)}
        self.tokenizers = [
            self.clip.SDTokenizer(
                f"{GOLDEN}/model/tokenizer",
                pad_with_end=key == "clip_l",
                embedding_directory=folder,
                embedding_size=model.config.hidden_size,
                embedding_key=key,
            )
            for key, model in zip(keys, models)
        ]

    def chunks(self, text):
        models = [self.pipeline.text_encoder, self.pipeline.text_encoder_2]
        encoded = []
        for tokenizer, model in zip(self.tokenizers, models):
            first, next_id = {}, model.config.vocab_size
            chunks = []
            for chunk in tokenizer.tokenize_with_weights(text):
                ids = []
                for token, weight in chunk:
                    if torch.is_tensor(token):
                        name, row = self.rows[tuple(token.tolist())]
                        if name not in first:
                            first[name] = next_id
                            next_id += EMBEDDINGS[name]
                        token = first[name] + row
                    ids.append((token, weight))
                chunks.append(ids)
            encoded.append(chunks)
        return encoded

    def states(self, text):
        outputs = []
        models = [self.pipeline.text_encoder, self.pipeline.text_encoder_2]
        for tokenizer, model in zip(self.tokenizers, models):
            weigher = self.clip.ClipTokenWeightEncoder()
            special = {"start": tokenizer.start_token, "end": tokenizer.end_token}
            weigher.special_tokens = special | {"pad": tokenizer.pad_token}

            def encode(tokens, model=model):
                output = model(torch.tensor(tokens), output_hidden_states=True)
                return output.hidden_states[-2].clone(), output[0]

            weigher.encode = encode
            outputs.append(weigher.encode_token_weights(tokenizer.tokenize_with_weights(text)))
        (first, _), (second, pooled) = outputs
        return torch.cat([first, second], -1), pooled


def prompts():
    """By hand, and at random from what matters to the parsers."""
    given = list(GIVEN)
    draw = random.Random(7)
    words = "a red circle above blue square blotstyle dog, the forest light! Ünï 8k".split()
    marks = ["(", ")", "[", "]", "(", ")", ":", ":1.2)", ":0.5)", ":-.3)", ",", "\\", "\\(", "\\)"]
    marks += ["|", ":0.4]", ":3]", "::2]", "[a:b:0.5]", "[a|b]", " BREAK ", "AND", "(a:1.3)", "\n"]
    for i in range(294 - len(given)):
        pool = words + marks * (i % 3)
        glue = draw.choice(["", " ", " ", ", "])
        text = glue.join(draw.choice(pool) for _ in range(draw.randint(1, 18)))
        given.append(text.replace("blotstyle", "style") if glue == "" else text)
    for i in range(12):
        pool = words + [",", ","] * (i % 2) + ["(a red:1.2)", "[dog]", "BREAK", "badmood"] * (i % 3)
        given.append(" ".join(draw.choice(pool) for _ in range(draw.randint(60, 150))))
    return given


def main():
    forge, comfy = sys.argv[1:]
    pipeline = load_pipeline(f"{GOLDEN}/model")
    a1111, comfyui = A1111(forge, pipeline), ComfyUI(comfy, pipeline)
    rows = {}
    for text in prompts():
        # Where both tools see a word of its own.
        names = "|".join(EMBEDDINGS)
        marked = re.sub(rf"(?<![^\s(])({names})(?![^\s:),])", r"embedding:\1", text)
        try:
            pieces = a1111.parser.parse_prompt_attention(text)
        except ValueError:
            # A1111 fails on weights such as 1.2.3; there is nothing to compare with.
            continue
        segments = comfyui.clip.token_weights(comfyui.clip.escape_important(text), 1.0)
        segments = [(comfyui.clip.unescape_important(each), weight) for each, weight in segments]
        digests = [
            pieces_digest(pieces),
            pieces_digest(segments),
            chunks_digest(a1111.chunks(text)),
            chunks_digest(comfyui.chunks(marked)),
            pieces_digest([(each, end) for end, each in a1111.schedule(text)]),
        ]
        rows[text] = " ".join(digests)
    tensors = {}
    for name, text in STATES.items():
        for mode in MODES[name]:
            states, pooled = (
                comfyui.states(text)
                if mode == "interpolate"
                else a1111.states(text, {"original": "Original", "no_norm": "No norm"}[mode])
            )
            tensors[f"{mode}.{name}.prompt_embeds"] = states
            if name == "weights":
                tensors[f"{mode}.{name}.pooled"] = pooled
    skipped = pipeline.encode_prompt("a red circle", clip_skip=1, do_classifier_free_guidance=True)
    second = pipeline.encode_prompt("a red circle", "a blue square", negative_prompt="blurry")
    for name, outputs in (("clip_skip", skipped), ("second", second)):
        tensors[f"{name}.prompt_embeds"], tensors[f"{name}.pooled"] = outputs[0], outputs[2]
    notes = {"vectors": EMBEDDINGS, "steps": STEPS, "states": STATES, "modes": MODES, "prompts": rows}
    save("tests/fixtures/prompts", tensors, notes)


if __name__ == "__main__":
    main()
