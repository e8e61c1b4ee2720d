//! What a job asks of the weights: adapters (LoRA and kin), each a safetensors file with the
//! weights that it changes. The caller decides which tensor belongs to which weight; the naming
//! schemes of files are unknown here.

const std = @import("std");
const Allocator = std.mem.Allocator;
const Component = @import("component.zig").Component;

pub const adapter_count_max = 64;
/// Of one adapter.
pub const target_count_max = 100_000;

/// How the tensors of an adapter change a weight.
pub const Algorithm = enum(u32) {
    /// The product of two matrices, or of three (Tucker decomposition).
    lora = 0,
    /// The elementwise product of two such products.
    loha = 1,
    /// The Kronecker product of two matrices, each whole or a product.
    lokr = 2,
    /// The whole difference.
    difference = 3,
    /// The weight itself in place of the model's.
    replace = 4,
};

/// The norm that DoRA divides by, of each row or column: that of the weight before the delta is
/// added, or of the sum.
pub const DoraNorm = enum(u32) { original = 0, merged = 1 };

/// What a tensor is to its algorithm; see `AdapterTarget` in `abi/types.zig`.
pub const Role = enum { up, down, mid, w1, w1_a, w1_b, t1, w2, w2_a, w2_b, t2, value, dora_scale };

/// Names of tensors in the adapter's file; "" for absent ones.
pub const Names = std.EnumArray(Role, []const u8);

/// A weight that an adapter changes.
pub const Target = struct {
    component: Component,
    algorithm: Algorithm,
    /// Of the delta: alpha / rank.
    scale: f32,
    dora_norm: DoraNorm,
    /// The weight's key in the model.
    key: []const u8,
    names: Names,

    pub fn eql(a: *const Target, b: *const Target) bool {
        if (a.component != b.component or a.algorithm != b.algorithm) return false;
        if (a.scale != b.scale or a.dora_norm != b.dora_norm) return false;
        if (!std.mem.eql(u8, a.key, b.key)) return false;
        for (a.names.values, b.names.values) |x, y| if (!std.mem.eql(u8, x, y)) return false;
        return true;
    }
};

pub const Adapter = struct {
    path: []const u8,
    /// The user's factors, for the UNet and the VAE, and for the text encoders.
    unet_scale: f32,
    text_scale: f32,
    targets: []const Target,

    pub fn strength(adapter: *const Adapter, component: Component) f32 {
        return switch (component) {
            .text_encoder, .text_encoder_2 => adapter.text_scale,
            .unet, .vae => adapter.unet_scale,
            .taesd => 0,
        };
    }

    pub fn eql(a: *const Adapter, b: *const Adapter) bool {
        if (!std.mem.eql(u8, a.path, b.path)) return false;
        if (a.unet_scale != b.unet_scale or a.text_scale != b.text_scale) return false;
        if (a.targets.len != b.targets.len) return false;
        for (a.targets, b.targets) |*x, *y| if (!x.eql(y)) return false;
        return true;
    }

    pub fn dupe(adapter: *const Adapter, arena: Allocator) Allocator.Error!Adapter {
        var copy = adapter.*;
        copy.path = try arena.dupe(u8, adapter.path);
        const targets = try arena.dupe(Target, adapter.targets);
        for (targets) |*target| {
            target.key = try arena.dupe(u8, target.key);
            for (&target.names.values) |*name| name.* = try arena.dupe(u8, name.*);
        }
        copy.targets = targets;
        return copy;
    }
};

test "adapters are equal where every part of them is" {
    var arena: std.heap.ArenaAllocator = .init(std.testing.allocator);
    defer arena.deinit();
    var names: Names = .initFill("");
    names.set(.up, "a.up");
    const targets = [_]Target{.{
        .component = .unet,
        .algorithm = .lora,
        .scale = 0.5,
        .dora_norm = .original,
        .key = "a.weight",
        .names = names,
    }};
    const one: Adapter = .{ .path = "f", .unet_scale = 1, .text_scale = 0, .targets = &targets };
    const copy = try one.dupe(arena.allocator());
    try std.testing.expect(one.eql(&copy));
    try std.testing.expectEqual(1, one.strength(.vae));
    try std.testing.expectEqual(0, one.strength(.text_encoder_2));
    names.set(.down, "a.down");
    var others = [_]Target{ targets[0], targets[0], targets[0] };
    others[0].names = names;
    others[1].scale = 1;
    others[2].key = "b.weight";
    for (others) |target| {
        var other = one;
        other.targets = &.{target};
        try std.testing.expect(!one.eql(&other));
    }
}
