//! The newest intermediate latent of the running job, for a reader on another thread. A rank writes
//! one buffer while the other is read; they trade places under a lock that is held for one copy at
//! most, so that the steps never wait for a reader.

const std = @import("std");
const Allocator = std.mem.Allocator;
const Io = std.Io;
const Tensor = @import("../tensor.zig").Tensor;
const Backend = @import("../backend.zig").Backend;

pub const Preview = struct {
    gpa: Allocator,
    io: Io,
    mutex: Io.Mutex = .init,
    /// (images, rows, width, channels); the reader's, and the rank's next.
    front: []f32 = &.{},
    back: []f32 = &.{},
    /// Finished steps of the latent in `front`; 0 while there is none.
    step: std.atomic.Value(u32) = .init(0),

    pub fn deinit(preview: *Preview) void {
        preview.gpa.free(preview.front);
        preview.gpa.free(preview.back);
        preview.* = undefined;
    }

    /// Before a job: there is nothing to read yet.
    pub fn reset(preview: *Preview) void {
        preview.step.store(0, .release);
    }

    /// Called by one rank: a copy of `latent` becomes what readers get.
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

    /// Copies the newest latent; returns its bytes, and copies nothing when `len` is another.
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
