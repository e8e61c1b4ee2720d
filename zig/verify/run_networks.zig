//! The networks of the tiny model: the CPU against what diffusers computed, then the GPU against
//! the same, or, where little time is left, against the CPU on smaller inputs.

const std = @import("std");
const Golden = @import("golden.zig").Golden;
const networks = @import("networks.zig");
const Network = networks.Network;
const records = @import("records.zig");
const runs = @import("run.zig");
const Run = runs.Run;
const sessions = @import("sessions.zig");
const Opened = sessions.Opened;
const DType = @import("../tensor.zig").DType;

pub fn run(r: *Run) runs.Error!void {
    const all = std.enums.values(Network);
    const types = [_]DType{ .f32, .f16, .bf16 };
    for (types) |activation| for (all) |network| {
        try check(r, network, activation);
    };
}

// --- internal ---

/// A session of its own: a GPU that fails in it may work in the next one.
fn check(r: *Run, network: Network, activation: DType) runs.Error!void {
    const is_cpu = activation == .f32;
    const type_name = if (is_cpu) "f32 on the CPU" else @tagName(activation);
    if (!try r.begins(network.title(), type_name)) return;
    const golden = try r.model(network.title()) orelse return;
    var place: sessions.Place = .{};
    if (!is_cpu) place = .{ .activation = activation, .library = r.options.library };
    var opened = Opened.open(r.gpa, r.io, golden, place) catch |err|
        return r.fail(network.title(), type_name, "{t}", .{err});
    defer opened.close();
    const compares_cpu = r.options.is_quick and !is_cpu and network != .text_encoders;
    const side: u32 = if (compares_cpu) networks.small_side else networks.recorded_side;
    const job = try networks.jobOf(r.gpa, network, side);
    const result = opened.run(job) catch
        return r.fail(network.title(), type_name, "{s}", .{opened.message});
    const off = if (compares_cpu)
        differenceFromCpu(r, golden, network, result)
    else
        differenceFromRecords(r, network, result);
    const what = if (compares_cpu) "against the CPU" else "against diffusers";
    const allowed = networks.allowedOf(activation);
    try r.compare(network.title(), type_name, what, try off, allowed);
}

const Result = @import("../pipeline.zig").Result;

fn differenceFromRecords(r: *Run, network: Network, result: *const Result) runs.Error!f64 {
    var arena: std.heap.ArenaAllocator = .init(r.gpa);
    defer arena.deinit();
    const nan = std.math.nan(f64);
    const all = records.Records.open(arena.allocator()) catch return nan;
    var worst: f64 = 0;
    for (network.outputs()) |compared| {
        const ours = result.values(f32, compared.output);
        const off = all.errorOf(compared.record, ours) catch nan;
        if (!(off <= worst)) worst = off;
    }
    return worst;
}

fn differenceFromCpu(
    r: *Run,
    golden: *Golden,
    network: Network,
    result: *const Result,
) runs.Error!f64 {
    const nan = std.math.nan(f64);
    var opened = Opened.open(r.gpa, r.io, golden, .{}) catch return nan;
    defer opened.close();
    const on_cpu = opened.run(try networks.jobOf(r.gpa, network, networks.small_side)) catch
        return nan;
    var worst: f64 = 0;
    for (network.outputs()) |compared| {
        const ours = result.values(f32, compared.output);
        const theirs = on_cpu.values(f32, compared.output);
        const off = records.relativeL2(ours, theirs);
        if (!(off <= worst)) worst = off;
    }
    return worst;
}
