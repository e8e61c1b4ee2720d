//! The part of the device seam that works element by element, and the embeddings: methods of
//! `Backend`, which check shapes and take their results from the scratch arena as all others do.

const assert = @import("std").debug.assert;
const backend = @import("../backend.zig");
const Activation = backend.Activation;
const Backend = backend.Backend;
const Error = backend.Error;
const Tensor = @import("../tensor.zig").Tensor;
const Weight = @import("../weights.zig").Weight;

pub fn activate(b: Backend, x: Tensor, activation: Activation) Error!Tensor {
    const out = try b.alloc(x.shape, b.activationType());
    switch (b.target()) {
        inline else => |device| try device.activate(out, x, activation),
    }
    return out;
}

/// x, times the channel's slope where it is below 0 (torch.nn.PReLU).
pub fn prelu(b: Backend, x: Tensor, slopes: *const Weight) Error!Tensor {
    assert(slopes.shape[0] == x.shape.channels);
    const out = try b.alloc(x.shape, b.activationType());
    switch (b.target()) {
        inline else => |device| try device.prelu(out, x, slopes),
    }
    return out;
}

/// (…, 2 * channels) to (…, channels): first half * gelu(second half).
pub fn geglu(b: Backend, x: Tensor) Error!Tensor {
    assert(x.shape.channels % 2 == 0);
    const out = try b.alloc(x.shape.withChannels(x.shape.channels / 2), b.activationType());
    switch (b.target()) {
        inline else => |device| try device.geglu(out, x),
    }
    return out;
}

/// Joins tensors of equal batch, rows and width along the channels.
pub fn concatChannels(b: Backend, parts: []const Tensor) Error!Tensor {
    var channels: u32 = 0;
    for (parts) |part| {
        assert(part.shape.withChannels(1).eql(parts[0].shape.withChannels(1)));
        channels += part.shape.channels;
    }
    const out = try b.alloc(parts[0].shape.withChannels(channels), b.activationType());
    switch (b.target()) {
        inline else => |device| try device.concatChannels(out, parts),
    }
    return out;
}

pub fn add(b: Backend, x: Tensor, y: Tensor) Error!Tensor {
    return addScaled(b, x, y, 1);
}

/// x + factor * y
pub fn addScaled(b: Backend, x: Tensor, y: Tensor, factor: f32) Error!Tensor {
    assert(x.shape.eql(y.shape));
    const out = try b.alloc(x.shape, b.activationType());
    switch (b.target()) {
        inline else => |device| try device.add(out, x, y, factor),
    }
    return out;
}

/// x += factor * y
pub fn accumulate(b: Backend, x: Tensor, y: Tensor, factor: f32) Error!void {
    assert(x.shape.eql(y.shape));
    switch (b.target()) {
        inline else => |device| try device.add(x, x, y, factor),
    }
}

/// out = (x + y) / 2
pub fn averageInto(b: Backend, out: Tensor, x: Tensor, y: Tensor) Error!void {
    assert(x.shape.eql(y.shape) and out.shape.eql(x.shape));
    switch (b.target()) {
        inline else => |device| try device.average(out, x, y),
    }
}

/// The image `factor * x`, `repeat` times along the batch: the UNet's input for all branches.
pub fn scaleRepeat(b: Backend, x: Tensor, factor: f32, repeat: u32) Error!Tensor {
    var shape = x.shape;
    shape.batch *= repeat;
    const out = try b.alloc(shape, b.activationType());
    switch (b.target()) {
        inline else => |device| try device.scaleRepeat(out, x, factor),
    }
    return out;
}

/// Writes the change from `view` to `value`, and adds it to `view` as the receivers will: what the
/// few bits lose is part of the next change.
pub fn quantizeChange(b: Backend, o: backend.Change, value: Tensor) Error!void {
    expectChange(o);
    assert(value.shape.eql(o.view.shape) and value.dtype == o.view.dtype);
    switch (b.target()) {
        inline else => |device| try device.quantizeChange(o, value),
    }
}

/// Adds a change that another rank has written.
pub fn applyChange(b: Backend, o: backend.Change) Error!void {
    expectChange(o);
    switch (b.target()) {
        inline else => |device| try device.applyChange(o),
    }
}

fn expectChange(o: backend.Change) void {
    const channels = o.view.shape.channels;
    assert(channels % o.format.group == 0 and o.change.dtype == .u8);
    assert(o.change.shape.eql(o.view.shape.withChannels(o.format.rowBytes(channels))));
}

// Embeddings.

/// token_weight[ids] + position_weight: ids (batch, 1, tokens, 1) i32 to (batch, 1, tokens, c).
/// `injected` (batch, 1, tokens, c) has the embedding of each position whose id is beyond the
/// vocabulary; its other positions are not read. Without it such ids take the last row.
pub fn embedTokens(
    b: Backend,
    ids: Tensor,
    token_weight: *const Weight,
    position_weight: *const Weight,
    injected: ?Tensor,
) Error!Tensor {
    assert(ids.dtype == .i32 and ids.shape.channels == 1);
    assert(ids.shape.width <= position_weight.shape[0]);
    assert(token_weight.shape[1] == position_weight.shape[1]);
    const out = try b.alloc(ids.shape.withChannels(token_weight.shape[1]), b.activationType());
    if (injected) |rows| assert(rows.shape.eql(out.shape) and rows.dtype == out.dtype);
    switch (b.target()) {
        inline else => |device| {
            try device.embedTokens(out, ids, token_weight, position_weight, injected);
        },
    }
    return out;
}

/// One position per batch element: x (batch, 1, tokens, c) to (batch, 1, 1, c). `indices` (batch,
/// 1, 1, 1) i32; one out of range takes the last position.
pub fn gatherTokens(b: Backend, x: Tensor, indices: Tensor) Error!Tensor {
    assert(indices.dtype == .i32 and indices.shape.eql(.vector(x.shape.batch, 1)));
    const out = try b.alloc(.vector(x.shape.batch, x.shape.channels), b.activationType());
    switch (b.target()) {
        inline else => |device| try device.gatherTokens(out, x, indices),
    }
    return out;
}

/// Sinusoids of each value: (n, 1, 1, 1) to (n, 1, 1, channels), as diffusers'
/// `get_timestep_embedding` (max_period 10000; cosines first when `flip_sin_to_cos`).
pub fn sinusoidalEmbedding(
    b: Backend,
    values: Tensor,
    channels: u32,
    flip_sin_to_cos: bool,
    frequency_shift: f32,
) Error!Tensor {
    assert(values.shape.eql(.vector(values.shape.batch, 1)));
    assert(channels % 2 == 0);
    const out = try b.alloc(.vector(values.shape.batch, channels), b.activationType());
    switch (b.target()) {
        inline else => |device| {
            try device.sinusoidalEmbedding(out, values, flip_sin_to_cos, frequency_shift);
        },
    }
    return out;
}
