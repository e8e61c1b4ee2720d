//! The file of an adapter, mapped, and its deltas: for each weight that it changes the tensors that
//! say how, with their shapes checked against each other and against the weight. The arithmetic is
//! in `backend/cpu/merge.zig`.

const std = @import("std");
const Allocator = std.mem.Allocator;
const Io = std.Io;
const adapters = @import("adapters.zig");
const checkpoints = @import("checkpoint.zig");
const Checkpoint = checkpoints.Checkpoint;
const Diagnostics = @import("../diagnostics.zig").Diagnostics;
const DType = @import("../tensor.zig").DType;
const Matrix = @import("matrix.zig").Matrix;
const safetensors = @import("safetensors.zig");
const resident = @import("resident.zig");
const sameShape = resident.sameShape;
const shown = @import("shown.zig").shown;
const Weight = @import("weight.zig").Weight;

pub const Error = safetensors.Error;

/// How a weight changes: sum + strength * scale * change, or with DoRA
/// sum + strength * ((sum + scale * change) * magnitude / norm - sum).
pub const Delta = struct {
    change: Change,
    scale: f32,
    strength: f32,
    dora: ?Dora = null,
};

pub const Change = union(enum) {
    product: Product,
    hadamard: [2]Product,
    kronecker: Kronecker,
    difference: Matrix,
    /// The new weight itself.
    replacement: Matrix,
};

/// a (rows, depth) * b (depth, columns)
pub const Product = struct { a: Matrix, b: Right };

pub const Right = union(enum) {
    matrix: Matrix,
    tucker: Tucker,

    pub fn depth(right: *const Right) usize {
        return switch (right.*) {
            .matrix => |matrix| matrix.rows,
            .tucker => |tucker| tucker.depth,
        };
    }
};

/// The sum over n of core (depth, n, taps) * inner (n, channels), as (depth, taps, channels).
pub const Tucker = struct {
    depth: usize,
    taps: usize,
    core: []const u8,
    core_dtype: DType,
    inner: Matrix,
};

pub const Kronecker = struct {
    /// (rows_1, columns_1)
    w1: Factor,
    /// (rows_2, taps * columns_2)
    w2: Factor,
    columns_1: usize,
    rows_2: usize,
    columns_2: usize,
    taps: usize,
};

pub const Factor = union(enum) { whole: Matrix, product: Product };

/// Weight decomposition: the sum's rows or columns get the file's magnitude in place of their norm.
/// ComfyUI, kohya and LyCORIS take rows of the weight as it is before this delta, or columns of the
/// sum; PEFT takes rows of the sum. `sum` here includes what earlier deltas added, as in ComfyUI;
/// PEFT takes the norm of the model's own weight plus this adapter alone.
pub const Dora = struct {
    /// One number per row, or per input channel.
    magnitude: Matrix,
    axis: enum { rows, channels },
    norm: adapters.DoraNorm,
};

pub const AdapterFile = struct {
    checkpoint: Checkpoint,

    /// As `Checkpoint.open`; must not move afterwards.
    pub fn open(
        gpa: Allocator,
        io: Io,
        path: []const u8,
        interrupt: *std.atomic.Value(bool),
        diagnostics: *Diagnostics,
    ) Error!AdapterFile {
        const files: checkpoints.Files = .{ .paths = &.{path} };
        return .{ .checkpoint = try .open(gpa, io, files, interrupt, diagnostics) };
    }

    pub fn close(file: *AdapterFile) void {
        file.checkpoint.close();
    }

    /// The delta of `target` for its weight. Its matrices point into the mapped file.
    pub fn delta(
        file: *const AdapterFile,
        target: *const adapters.Target,
        weight: *const Weight,
        strength: f32,
    ) Error!Delta {
        const reader: Reader = .{
            .checkpoint = &file.checkpoint,
            .target = target,
            .weight = weight,
        };
        return .{
            .change = switch (target.algorithm) {
                .lora => .{ .product = try reader.lora() },
                .loha => .{ .hadamard = try reader.loha() },
                .lokr => .{ .kronecker = try reader.lokr() },
                .difference => .{ .difference = try reader.whole() },
                .replace => .{ .replacement = try reader.whole() },
            },
            .scale = target.scale,
            .strength = strength,
            .dora = try reader.dora(),
        };
    }
};

// --- internal ---

/// A tensor of the file that can be read.
const Tensor = struct {
    name: []const u8,
    bytes: []const u8,
    dtype: DType,
    shape: []const u64,

    fn dim(tensor: *const Tensor, i: usize) usize {
        return if (i < tensor.shape.len) @intCast(tensor.shape[i]) else 1;
    }
};

const Reader = struct {
    checkpoint: *const Checkpoint,
    target: *const adapters.Target,
    weight: *const Weight,

    fn lora(reader: Reader) Error!Product {
        const up = try reader.need(.up);
        const down = try reader.need(.down);
        const mid = try reader.find(.mid) orelse {
            const b = try reader.columnsOf(&down, reader.in(), reader.taps());
            return .{ .a = try reader.rowsOf(&up, b.rows), .b = .{ .matrix = b } };
        };
        const b = try reader.tucker(&mid, &down, reader.in());
        return .{ .a = try reader.rowsOf(&up, b.depth), .b = .{ .tucker = b } };
    }

    fn loha(reader: Reader) Error![2]Product {
        return .{
            try reader.lohaHalf(.w1_a, .w1_b, .t1),
            try reader.lohaHalf(.w2_a, .w2_b, .t2),
        };
    }

    fn lohaHalf(
        reader: Reader,
        role_a: adapters.Role,
        role_b: adapters.Role,
        role_t: adapters.Role,
    ) Error!Product {
        const a = try reader.need(role_a);
        const b = try reader.need(role_b);
        const core = try reader.find(role_t) orelse {
            const right = try reader.columnsOf(&b, reader.in(), reader.taps());
            return .{ .a = try reader.rowsOf(&a, right.rows), .b = .{ .matrix = right } };
        };
        return reader.tuckerProduct(&a, &core, &b, reader.weight.shape[0], reader.in());
    }

    fn lokr(reader: Reader) Error!Kronecker {
        const first = try reader.find(.w1);
        const first_a = if (first == null) try reader.need(.w1_a) else null;
        const first_b = if (first == null) try reader.need(.w1_b) else null;
        const rows_1 = if (first) |w1| w1.dim(0) else first_a.?.dim(0);
        const columns_1 = if (first) |w1| w1.dim(1) else first_b.?.dim(1);
        const rows: usize = reader.weight.shape[0];
        if (rows_1 == 0 or columns_1 == 0 or rows % rows_1 != 0 or reader.in() % columns_1 != 0) {
            return reader.misfit(&(first orelse first_a.?));
        }
        const w1: Factor = if (first) |w1|
            .{ .whole = try reader.dense(&w1, rows_1, columns_1) }
        else
            .{ .product = .{
                .a = try reader.dense(&first_a.?, rows_1, first_b.?.dim(0)),
                .b = .{ .matrix = try reader.dense(&first_b.?, first_b.?.dim(0), columns_1) },
            } };
        const rows_2 = rows / rows_1;
        const columns_2 = reader.in() / columns_1;
        return .{
            .w1 = w1,
            .w2 = try reader.lokrRight(rows_2, columns_2),
            .columns_1 = columns_1,
            .rows_2 = rows_2,
            .columns_2 = columns_2,
            .taps = reader.taps(),
        };
    }

    fn lokrRight(reader: Reader, rows: usize, channels: usize) Error!Factor {
        if (try reader.find(.w2)) |w2| {
            if (w2.dim(0) != rows) return reader.misfit(&w2);
            return .{ .whole = try reader.columnsOf(&w2, channels, reader.taps()) };
        }
        const a = try reader.need(.w2_a);
        const b = try reader.need(.w2_b);
        if (try reader.find(.t2)) |core| {
            return .{ .product = try reader.tuckerProduct(&a, &core, &b, rows, channels) };
        }
        const right = try reader.columnsOf(&b, channels, reader.taps());
        return .{ .product = .{
            .a = try reader.dense(&a, rows, right.rows),
            .b = .{ .matrix = right },
        } };
    }

    /// The weight's own shape.
    fn whole(reader: Reader) Error!Matrix {
        const value = try reader.need(.value);
        if (value.dim(0) != reader.weight.shape[0]) return reader.misfit(&value);
        return reader.columnsOf(&value, reader.in(), reader.taps());
    }

    fn dora(reader: Reader) Error!?Dora {
        const magnitude = try reader.find(.dora_scale) orelse return null;
        const count = magnitude.bytes.len / magnitude.dtype.size();
        const rows: usize = reader.weight.shape[0];
        const norm = reader.target.dora_norm;
        // PEFT's convolutions have (1, out, 1, 1), and always rows.
        const is_rows = count == rows and (magnitude.dim(0) == rows or norm == .merged);
        if (!is_rows and count != reader.in()) return reader.misfit(&magnitude);
        return .{
            .magnitude = .dense(magnitude.bytes, magnitude.dtype, 1, count),
            .axis = if (is_rows) .rows else .channels,
            .norm = if (is_rows) norm else .merged,
        };
    }

    // Parts of the above.

    fn in(reader: Reader) usize {
        return reader.weight.inputs().channels;
    }

    fn taps(reader: Reader) usize {
        const inputs = reader.weight.inputs();
        return inputs.height * inputs.width;
    }

    /// (out, depth) of the weight.
    fn rowsOf(reader: Reader, tensor: *const Tensor, depth: usize) Error!Matrix {
        return reader.dense(tensor, reader.weight.shape[0], depth);
    }

    fn dense(reader: Reader, tensor: *const Tensor, rows: usize, columns: usize) Error!Matrix {
        if (!sameShape(tensor.shape, &[_]usize{ rows, columns })) return reader.misfit(tensor);
        return .dense(tensor.bytes, tensor.dtype, rows, columns);
    }

    /// (any, channels, height, width) or (any, channels * height * width), read as (any, taps,
    /// channels).
    fn columnsOf(
        reader: Reader,
        tensor: *const Tensor,
        channels: usize,
        tap_count: usize,
    ) Error!Matrix {
        const rows = tensor.dim(0);
        const inputs = reader.weight.inputs();
        const spread = [_]usize{ rows, channels, inputs.height, inputs.width };
        const flat = [_]usize{ rows, channels * tap_count };
        const fits = sameShape(tensor.shape, &spread) or sameShape(tensor.shape, &flat);
        if (rows == 0 or !fits) return reader.misfit(tensor);
        return .permuted(tensor.bytes, tensor.dtype, rows, tap_count, channels);
    }

    /// core (depth, n, height, width) with inner (n, channels).
    fn tucker(
        reader: Reader,
        core: *const Tensor,
        inner: *const Tensor,
        channels: usize,
    ) Error!Tucker {
        const inputs = reader.weight.inputs();
        const n = core.dim(1);
        const expected = [_]usize{ core.dim(0), n, inputs.height, inputs.width };
        if (core.dim(0) == 0 or n == 0 or !sameShape(core.shape, &expected)) {
            return reader.misfit(core);
        }
        return .{
            .depth = core.dim(0),
            .taps = reader.taps(),
            .core = core.bytes,
            .core_dtype = core.dtype,
            .inner = try reader.dense(inner, n, channels),
        };
    }

    /// LyCORIS keeps the left factor of a Tucker decomposition as (depth, rows).
    fn tuckerProduct(
        reader: Reader,
        a: *const Tensor,
        core: *const Tensor,
        b: *const Tensor,
        rows: usize,
        channels: usize,
    ) Error!Product {
        const right = try reader.tucker(core, b, channels);
        _ = try reader.dense(a, right.depth, rows);
        return .{
            .a = .transposed(a.bytes, a.dtype, rows, right.depth),
            .b = .{ .tucker = right },
        };
    }

    fn need(reader: Reader, role: adapters.Role) Error!Tensor {
        return try reader.find(role) orelse reader.checkpoint.diagnostics.fail(
            error.BadWeights,
            "{s}: the {s} delta of {f} lacks its tensor \"{s}\".",
            .{
                reader.checkpoint.firstPath(),
                @tagName(reader.target.algorithm),
                shown(reader.target.key),
                @tagName(role),
            },
        );
    }

    fn find(reader: Reader, role: adapters.Role) Error!?Tensor {
        const name = reader.target.names.get(role);
        if (name.len == 0) return null;
        const d = reader.checkpoint.diagnostics;
        const path = reader.checkpoint.firstPath();
        const entry = reader.checkpoint.entries.getPtr(name) orelse {
            const sentence = "tensor {f} is missing from {s}.";
            return d.fail(error.BadWeights, sentence, .{ shown(name), path });
        };
        const known = resident.dtypes.get(entry.tensor.dtype);
        const dtype = if (known != .i8) known else null;
        const floating = dtype orelse {
            const sentence = "{s}: tensor {f} has type {f}; deltas are read in F32, F16, BF16, " ++
                "F8_E4M3 or F8_E5M2.";
            const shown_type = shown(entry.tensor.dtype);
            return d.fail(error.BadWeights, sentence, .{ path, shown(name), shown_type });
        };
        return .{
            .name = name,
            .bytes = entry.tensor.bytes,
            .dtype = floating,
            .shape = entry.tensor.shape(),
        };
    }

    fn misfit(reader: Reader, tensor: *const Tensor) error{BadWeights} {
        const inputs = reader.weight.inputs();
        return reader.checkpoint.diagnostics.fail(error.BadWeights, "{s}: tensor {f} has shape " ++
            "{any}, which does not fit the {s} delta of {f} with shape {any}. Was the file made " ++
            "for another model?", .{
            reader.checkpoint.firstPath(),
            shown(tensor.name),
            tensor.shape,
            @tagName(reader.target.algorithm),
            shown(reader.target.key),
            [_]usize{ reader.weight.shape[0], inputs.channels, inputs.height, inputs.width },
        });
    }
};

const testing = std.testing;

/// Whether every element that the matrix names lies within its bytes.
fn expectCovered(matrix: Matrix, rows: usize, columns: usize) !void {
    try testing.expectEqual(rows, matrix.rows);
    try testing.expectEqual(columns, matrix.columns);
    if (rows == 0 or columns == 0) return;
    const inner = @min(matrix.inner, columns) - 1;
    const last = (rows - 1) * matrix.row_step +
        (columns - 1) / matrix.inner * matrix.outer_step + inner * matrix.inner_step;
    try testing.expect((last + 1) * matrix.dtype.size() <= matrix.bytes.len);
}

fn expectProduct(product: *const Product, rows: usize, channels: usize, taps: usize) !void {
    const depth = product.b.depth();
    try testing.expect(depth > 0);
    try expectCovered(product.a, rows, depth);
    switch (product.b) {
        .matrix => |matrix| try expectCovered(matrix, depth, taps * channels),
        .tucker => |tucker| {
            try testing.expectEqual(taps, tucker.taps);
            const n = tucker.inner.rows;
            try expectCovered(tucker.inner, n, channels);
            const bytes = depth * n * taps * tucker.core_dtype.size();
            try testing.expectEqual(bytes, tucker.core.len);
        },
    }
}

fn expectFactor(factor: *const Factor, rows: usize, channels: usize, taps: usize) !void {
    switch (factor.*) {
        .whole => |matrix| try expectCovered(matrix, rows, taps * channels),
        .product => |*product| try expectProduct(product, rows, channels, taps),
    }
}

pub fn expectInBounds(delta: *const Delta, weight: *const Weight) !void {
    const inputs = weight.inputs();
    const rows: usize = weight.shape[0];
    const channels = inputs.channels;
    const taps = inputs.height * inputs.width;
    switch (delta.change) {
        .product => |*product| try expectProduct(product, rows, channels, taps),
        .hadamard => |*both| for (both) |*one| try expectProduct(one, rows, channels, taps),
        .kronecker => |*k| {
            const rows_1 = rows / k.rows_2;
            try testing.expectEqual(rows, rows_1 * k.rows_2);
            try testing.expectEqual(channels, k.columns_1 * k.columns_2);
            try expectFactor(&k.w1, rows_1, k.columns_1, 1);
            try expectFactor(&k.w2, k.rows_2, k.columns_2, taps);
        },
        .difference, .replacement => |matrix| try expectCovered(matrix, rows, taps * channels),
    }
    const magnitude = if (delta.dora) |dora| dora.magnitude else return;
    try expectCovered(magnitude, 1, if (delta.dora.?.axis == .rows) rows else channels);
}

/// A shape that fits some algorithm for a weight of (4, 6, side, side), or any other.
fn randomShape(random: std.Random, role: adapters.Role, side: u64, shape: *[5]u64) []const u64 {
    const right: [5]u64 = switch (role) {
        .up, .w1_a => .{ 4, 2, 1, 1, 1 },
        .w2_a => .{ if (random.boolean()) 4 else 2, 2, 1, 1, 1 },
        .down => .{ 2, 6, side, side, 1 },
        .w1_b => .{ 2, 6 * side * side, 1, 1, 1 },
        .w2_b => .{ 2, if (random.boolean()) 6 * side * side else 3 * side * side, 1, 1, 1 },
        .mid, .t1, .t2 => .{ 2, 2, side, side, 1 },
        .w1 => .{ 2, 2, 1, 1, 1 },
        .w2 => .{ 2, 3, side, side, 1 },
        .value => .{ 4, 6, side, side, 1 },
        .dora_scale => .{ if (random.boolean()) 4 else 1, 6, 1, 1, 1 },
    };
    shape.* = right;
    var rank: usize = shape.len;
    while (rank > 1 and shape[rank - 1] == 1 and random.boolean()) rank -= 1;
    if (random.uintLessThan(u32, 4) == 0) {
        shape[random.uintLessThan(usize, rank)] = random.uintLessThan(u64, 8);
    }
    if (random.uintLessThan(u32, 16) == 0) rank = random.uintLessThan(usize, rank + 1);
    return shape[0..rank];
}

test "whatever shapes tensors have, a delta reads within them or is refused" {
    var prng: std.Random.DefaultPrng = .init(11);
    const random = prng.random();
    const zeros: [1 << 16]u8 = @splat(0);
    var accepted: std.EnumArray(adapters.Algorithm, usize) = .initFill(0);
    for (0..20_000) |_| {
        var d: Diagnostics = .{};
        var checkpoint: Checkpoint = .{
            .arena = .init(testing.allocator),
            .io = testing.io,
            .diagnostics = &d,
        };
        defer checkpoint.arena.deinit();
        const arena = checkpoint.arena.allocator();
        const side: u32 = if (random.boolean()) 1 else 2;
        const weight: Weight = .{
            .name = "k",
            .layout = if (side > 1) .convolution else .matrix,
            .dtype = .f16,
            .shape = if (side > 1) .{ 4, side, side, 6 } else .{ 4, 6, 1, 1 },
            .source = &.{},
            .source_dtype = .f16,
        };
        var target: adapters.Target = .{
            .component = .unet,
            .algorithm = random.enumValue(adapters.Algorithm),
            .scale = 1,
            .dora_norm = random.enumValue(adapters.DoraNorm),
            .key = "k",
            .names = .initFill(""),
        };
        for (std.enums.values(adapters.Role)) |role| {
            const is_rare = role == .mid or role == .t1 or role == .t2 or role == .dora_scale;
            if (random.uintLessThan(u32, 4) < @as(u32, if (is_rare) 3 else 1)) continue;
            target.names.set(role, @tagName(role));
            var shape: [5]u64 = undefined;
            const given = randomShape(random, role, side, &shape);
            var tensor: safetensors.Tensor = .{ .name = @tagName(role), .dtype = "F16" };
            tensor.rank = @intCast(given.len);
            @memcpy(tensor.dimensions[0..given.len], given);
            var count: usize = 1;
            for (given) |dimension| count *= @intCast(dimension);
            tensor.bytes = zeros[0 .. 2 * count];
            try checkpoint.entries.put(arena, tensor.name, .{ .tensor = tensor, .path = "f" });
        }
        const file: AdapterFile = .{ .checkpoint = checkpoint };
        const delta = file.delta(&target, &weight, 1) catch |err| {
            try testing.expectEqual(error.BadWeights, err);
            try testing.expect(std.mem.endsWith(u8, d.message(), ".") or
                std.mem.endsWith(u8, d.message(), "?"));
            continue;
        };
        try expectInBounds(&delta, &weight);
        accepted.getPtr(target.algorithm).* += 1;
    }
    // Enough of every kind to prove something.
    for (accepted.values) |count| try testing.expect(count > 10);
}
