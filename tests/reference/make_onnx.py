"""Writes a UNet of a diffusers folder as ONNX, for onnxruntime's side of `bun run bench cpu-peers`.

    make_onnx.py MODEL OUT --side 512 [--int8]

OUT is a folder: unet.onnx with its weights beside it, in f32 (10 GB at SDXL's size). With --int8, as
onnxruntime.quantization.quantize_dynamic writes it for MatMul: weights of linear layers in int8 with
one scale each, activations quantized in the graph (DynamicQuantizeLinear, MatMulInteger). Tensors are
written one after the other, so that memory for one is enough.
"""

import argparse
import os

import numpy
import onnx_ir as ir
import torch
from diffusers import UNet2DConditionModel
from safetensors import safe_open

WEIGHTS = "diffusion_pytorch_model.safetensors"


class Unet(torch.nn.Module):
    def __init__(self, unet):
        super().__init__()
        self.unet = unet

    def forward(self, sample, timestep, embeds, text_embeds, time_ids):
        conditions = {"text_embeds": text_embeds, "time_ids": time_ids}
        return self.unet(
            sample, timestep, encoder_hidden_states=embeds, added_cond_kwargs=conditions
        ).sample


def export(folder, side):
    """The graph, its weights without values."""
    config = UNet2DConditionModel.load_config(folder)
    with torch.device("meta"):
        unet = Unet(UNet2DConditionModel.from_config(config)).eval()
        size, width = side // 8, config["cross_attention_dim"]
        pooled = config["projection_class_embeddings_input_dim"] - 6 * config["addition_time_embed_dim"]
        inputs = (
            torch.rand(1, 4, size, size),
            torch.tensor([601.0]),
            torch.rand(1, 77, width),
            torch.rand(1, pooled),
            torch.rand(1, 6),
        )
    names = ["sample", "timestep", "embeds", "text_embeds", "time_ids"]
    program = torch.onnx.export(unet, inputs, input_names=names, dynamo=True, optimize=False)
    return program.model


class Source:
    """Values of the file's tensors in f32, read when they are written."""

    def __init__(self, path):
        self.file = safe_open(path, "np")

    def values(self, name, transposed):
        values = self.file.get_tensor(name.removeprefix("unet.")).astype(numpy.float32)
        return numpy.ascontiguousarray(values.T) if transposed else values

    def tensor(self, name, shape, dtype, make):
        return ir.LazyTensor(lambda: ir.tensor(make(), name=name), dtype, ir.Shape(shape), name=name)


def quantized(values):
    scale = numpy.float32(max(abs(values).max(), 1e-30) / 127)
    return numpy.rint(values / scale).astype(numpy.int8), scale


def fill(model, source, int8):
    """Gives weights their values; transposed ones are written so."""
    graph = model.graph
    for value in list(graph.initializers.values()):
        if value.name.removeprefix("unet.") not in source.file.keys():
            continue
        shape = list(value.shape)
        name = value.name
        value.const_value = source.tensor(
            name, shape, ir.DataType.FLOAT, lambda name=name: source.values(name, False)
        )
        for node in list(value.consumers()):
            if node.op_type == "Transpose":
                transpose(graph, source, value, node, int8)
        if not value.consumers():
            del graph.initializers[name]


def transpose(graph, source, value, node, int8):
    """Replaces Transpose of a weight by the transposed weight, and its products where `int8`."""
    name, shape = value.name, list(value.shape)[::-1]
    lazily = lambda: source.values(name, True)
    users = list(node.outputs[0].consumers())
    if int8 and all(user.op_type == "MatMul" for user in users):
        for user in users:
            quantize(graph, source, name, shape, user)
    else:
        tensor = source.tensor(name + ".T", shape, ir.DataType.FLOAT, lazily)
        graph.initializers[name + ".T"] = weight = constant(tensor)
        node.outputs[0].replace_all_uses_with(weight)
    graph.remove(node, safe=True)


def constant(tensor):
    return ir.Value(
        name=tensor.name, type=ir.TensorType(tensor.dtype), shape=tensor.shape, const_value=tensor
    )


def quantize(graph, source, name, shape, product):
    """x W = scale(x) scale(W) (int8(x) int8(W)), as quantize_dynamic writes it."""
    scale = quantized(source.values(name, True))[1]
    values = {
        ".int8": source.tensor(
            name + ".int8", shape, ir.DataType.INT8, lambda: quantized(source.values(name, True))[0]
        ),
        ".scale": ir.tensor(numpy.array(scale), name=name + ".scale"),
        ".zero": ir.tensor(numpy.array(0, numpy.int8), name=name + ".zero"),
    }
    weights = {}
    for end, tensor in values.items():
        graph.initializers[name + end] = weights[end] = constant(tensor)
    x = product.inputs[0]
    rounded = ir.node("DynamicQuantizeLinear", [x], num_outputs=3)
    x8, x_scale, x_zero = rounded.outputs
    integer = ir.node("MatMulInteger", [x8, weights[".int8"], x_zero, weights[".zero"]])
    widened = ir.node("Cast", [integer.outputs[0]], {"to": ir.DataType.FLOAT.value})
    factor = ir.node("Mul", [x_scale, weights[".scale"]])
    scaled = ir.node("Mul", [widened.outputs[0], factor.outputs[0]])
    graph.insert_before(product, [rounded, integer, widened, factor, scaled])
    product.outputs[0].replace_all_uses_with(scaled.outputs[0])
    graph.remove(product, safe=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("out")
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--int8", action="store_true")
    options = parser.parse_args()
    folder = os.path.join(options.model, "unet")
    with torch.no_grad():
        model = export(folder, options.side)
    fill(model, Source(os.path.join(folder, WEIGHTS)), options.int8)
    os.makedirs(options.out, exist_ok=True)
    # Written last, whole: whoever finds it has all of it.
    part = os.path.join(options.out, "part.onnx")
    ir.save(model, part, external_data="unet.weights")
    os.rename(part, os.path.join(options.out, "unet.onnx"))


if __name__ == "__main__":
    main()
