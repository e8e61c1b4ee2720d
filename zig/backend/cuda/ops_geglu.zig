//! The feed-forward's gated product: by an own kernel, which never writes the product itself, or by
//! cuBLASLt with a GEGLU pass behind it.

const std = @import("std");
const assert = std.debug.assert;
const backend = @import("../../backend.zig");
const cudas = @import("../cuda.zig");
const Cuda = cudas.Cuda;
const Error = cudas.Error;
const linear_geglu = @import("linear_geglu.zig");
const ops_elementwise = @import("ops_elementwise.zig");
const ops_int8 = @import("ops_int8.zig");
const ops_product = @import("ops_product.zig");
const ops_widen = @import("ops_widen.zig");
const own_or_library = @import("own_or_library.zig");
const Tensor = @import("../../tensor.zig").Tensor;
const Weight = @import("../../weights.zig").Weight;

/// Whether one kernel can do it, as far as sizes say.
pub fn isOneKernel(weight: *const Weight) bool {
    return linear_geglu.fits(weight.shape[0] / 2, weight.shape[1]);
}

/// `wide`: room for the whole product, before its second half gates the first; null for int8, for
/// which `options` has what is needed.
pub fn linearGeglu(
    cuda: *Cuda,
    out: Tensor,
    wide: ?Tensor,
    x: Tensor,
    weight: *const Weight,
    bias: *const Weight,
    options: backend.LinearOptions,
) Error!void {
    assert(x.dtype == cuda.activation and out.dtype == cuda.activation);
    if (weight.dtype == .i8) return ops_int8.linearGeglu(cuda, out, weight, bias, options);
    const ways: Ways = .{
        .cuda = cuda,
        .out = out,
        .wide = wide.?,
        .weight = weight,
        .call = .{
            .m = @intCast(x.shape.rowCount()),
            .columns = out.shape.channels,
            .k = x.shape.channels,
            .out = out.address,
            .x = x.address,
            .w = try ops_widen.operand(cuda, weight),
            .bias = cuda.addressOf(bias),
        },
    };
    return ways.take(try ways.choose());
}

// --- internal ---

const Ways = struct {
    cuda: *Cuda,
    out: Tensor,
    wide: Tensor,
    weight: *const Weight,
    call: linear_geglu.Call,

    fn choose(ways: *const Ways) Error!own_or_library.Way {
        const cuda = ways.cuda;
        const call = &ways.call;
        if (!isOneKernel(ways.weight)) return .library;
        if (cuda.cascades(ways.weight)) return .library;
        var buffer: [128]u8 = undefined;
        const name = std.fmt.bufPrint(&buffer, "geglu {t} {d}x{d}x{d}", .{
            cuda.activation, call.m, call.columns, call.k,
        }) catch unreachable; // Three numbers fit 128 bytes.
        const flops = 4 * @as(u64, call.m) * call.columns * call.k;
        return own_or_library.choose(cuda, ways, flops, name);
    }

    pub fn take(ways: *const Ways, way: own_or_library.Way) Error!void {
        const cuda = ways.cuda;
        const call = &ways.call;
        if (way == .own) {
            return linear_geglu.run(cuda, try linear_geglu.kernelFor(cuda), call.*);
        }
        try ops_product.multiply(cuda, ways.weight, .{
            .m = call.m,
            .n = 2 * call.columns,
            .k = call.k,
            .input = cuda.activation,
            .output = cuda.activation,
            .out = ways.wide.address,
            .x = call.x,
            .w = call.w,
            .bias = call.bias,
        });
        return ops_elementwise.geglu(cuda, ways.out, ways.wide);
    }
};
