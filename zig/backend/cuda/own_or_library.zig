//! Operations that one own kernel does, or the libraries' in several: large ones are timed both
//! ways at their first use, and the faster way is kept with cuBLASLt's own choices, so that results
//! keep their bits.

const std = @import("std");
const cudas = @import("../cuda.zig");
const Cuda = cudas.Cuda;
const Error = cudas.Error;
const gemm = @import("gemm.zig");
const measure = @import("measure.zig");

pub const Way = enum { own, library };

/// One operation with its operands, for GPUs with the own kernel; `ways.take(way)` queues it.
/// `name` has its sizes in it.
pub fn choose(cuda: *Cuda, ways: anytype, flops: u64, name: []const u8) Error!Way {
    if (flops < measured_flops_min) return .own;
    const options = if (cuda.libraries) |*handles| &handles.matmul.options else return .own;
    if (known(options, name)) |way| return way;
    if (!options.may_measure or measure.isCapturing(cuda.driver, cuda.stream)) return .own;
    const runner: Runner(@TypeOf(ways)) = .{ .ways = ways };
    const best = try measure.fastest(
        cuda.driver,
        cuda.stream,
        options.waits,
        runner,
        values.len,
    );
    options.algorithms.put(name, @tagName(values[best])) catch {};
    // Another rank may have been first: all take the same.
    return known(options, name) orelse values[best];
}

// --- internal ---

/// Smaller products cost less than what is saved by one launch for two.
const measured_flops_min = 1 << 31;

const values = std.enums.values(Way);

fn known(options: *const gemm.Options, name: []const u8) ?Way {
    return std.meta.stringToEnum(Way, options.algorithms.get(name) orelse return null);
}

/// Of `measure.fastest`.
fn Runner(comptime Ways: type) type {
    return struct {
        ways: Ways,

        pub fn run(runner: @This(), index: usize) bool {
            runner.ways.take(values[index]) catch return false;
            return true;
        }
    };
}
