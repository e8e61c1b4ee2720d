//! The newest intermediate latent of the running job, for a reader on another thread. Double
//! buffered: a rank writes the back buffer, then swaps it with the front buffer under a lock. The
//! lock is held for one copy at most, so that steps hardly wait for a reader.

const std = @import("std");
const Allocator = std.mem.Allocator;
const Io = std.Io;
const Tensor = @import("../tensor.zig").Tensor;
const Backend = @import("../backend.zig").Backend;

pub const Preview = struct {
    gpa: Allocator,
    io: Io,
    mutex: Io.Mutex = .init,
    /// (images, rows, width, channels): the buffer to be read, and the one that a rank writes next.
    front: []f32 = &.{},
    back: []f32 = &.{},
    /// Finished steps of the latent in `front`; 0 for none yet.
    step: std.atomic.Value(u32) = .init(0),

    pub fn deinit(preview: *Preview) void {
        preview.gpa.free(preview.front);
        preview.gpa.free(preview.back);
        preview.* = undefined;
    }

    /// Called before a job: no preview yet.
    pub fn reset(preview: *Preview) void {
        preview.step.store(0, .release);
    }

    /// Called by one rank: publishes a copy of `latent` to readers.
    pub fn publish(preview: *Preview, b: Backend, latent: Tensor, step: u32) !void {
        const count = latent.shape.elementCount();
        if (preview.back.len != count) {
            preview.gpa.free(preview.back);
            preview.back = &.{};
            preview.back = try preview.gpa.alloc(f32, count);
        }
        try b.downloadFloats(latent, preview.back);
        preview.mutex.lockUncancelable(preview.io);
        defer preview.mutex.unlock(preview.io);
        std.mem.swap([]f32, &preview.front, &preview.back);
        preview.step.store(step, .release);
    }

    /// Copies the newest latent and returns its size in bytes; copies nothing where `len` differs.
    pub fn read(preview: *Preview, buffer: ?[*]u8, len: u64) u64 {
        preview.mutex.lockUncancelable(preview.io);
        defer preview.mutex.unlock(preview.io);
        if (preview.step.load(.acquire) == 0) return 0;
        const bytes = std.mem.sliceAsBytes(preview.front);
        if (buffer) |target| {
            if (len == bytes.len) @memcpy(target[0..bytes.len], bytes);
        }
        return bytes.len;
    }
};
