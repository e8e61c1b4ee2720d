//! What each step of a job computes of the UNet and what it takes from earlier steps: by the job's
//! schedule, or by how much the image that the model predicts has changed since the last full step.

const backend = @import("../backend.zig");
const Part = backend.Part;
const Tensor = @import("../tensor.zig").Tensor;
const reuses = @import("../model/reuse.zig");
pub const Reuse = reuses.Reuse;
const Job = @import("job.zig").Job;
const Layout = @import("../patch/layout.zig").Layout;
const Shape = @import("../tensor.zig").Shape;
const Signals = @import("decisions.zig").Signals;
const ranks = @import("rank.zig");
const Rank = ranks.Rank;
const Error = ranks.Error;

/// What a step did, for the result.
pub const StepParts = extern struct { deep: Part, cross: Part };

pub const StepReuses = struct {
    /// Kept outputs of cross-attention, from the gate on.
    outputs: []const Tensor = &.{},
    /// The deep feature of the run's last full step; its memory lasts as long as the run.
    feature: ?Tensor = null,
    has_feature: bool = false,
    /// Of the predicted image since the last full step.
    change: f64 = 0,
    /// Of the result, written by the rank that reports.
    parts: []StepParts = &.{},

    /// Allocates what lasts until the last step.
    pub fn init(rank: *Rank) Error!StepReuses {
        var steps: StepReuses = .{};
        if (rank.reporter != null) {
            const step_count = rank.job.steps.len;
            steps.parts = try rank.result.alloc(StepParts, .step_parts, step_count);
        }
        if (!rank.job.gatesCross()) return steps;
        const layout = rank.layouts.get(if (rank.job.branch_count > 1) .positive else .all);
        if (layout.isIdle(rank.index)) return steps;
        const sample = sampleShape(rank, layout);
        const unet = &rank.model.unet;
        const count = unet.context_slot_count;
        steps.outputs = try reuses.allocOutputs(rank.arena, rank.b, &unet.config, sample, count);
        return steps;
    }

    pub fn deinit(steps: *StepReuses, rank: *Rank) void {
        reuses.freeOutputs(rank.b, steps.outputs);
    }

    /// Before the first step of a run.
    pub fn openRun(steps: *StepReuses, rank: *Rank) Error!void {
        steps.has_feature = false;
        if (rank.job.outer_skips == 0 or rank.layout.isIdle(rank.index)) return;
        const config = &rank.model.unet.config;
        const sample = sampleShape(rank, rank.layout);
        const shape = reuses.featureShape(config, sample, rank.job.outer_skips);
        steps.feature = try rank.b.alloc(shape, rank.b.activationType());
    }

    pub fn closeRun(steps: *StepReuses, rank: *Rank) void {
        if (steps.feature) |feature| rank.b.free(feature);
        steps.feature = null;
    }

    /// What the next step does. Every rank gets the same, idle ones too.
    pub fn next(steps: *StepReuses, rank: *const Rank, step: usize, signals: *const Signals) Reuse {
        const reuse = steps.of(rank.job, step, signals);
        if (steps.parts.len > 0) steps.parts[step] = .{ .deep = reuse.deep, .cross = reuse.cross };
        return reuse;
    }

    // --- internal ---

    fn of(steps: *StepReuses, job: *const Job, step: usize, signals: *const Signals) Reuse {
        const planned = job.reuseAt(step);
        var reuse: Reuse = .{ .cross = planned.cross, .outputs = steps.outputs };
        if (planned.cross == .keep and job.branchesAt(step) == .together) {
            reuse.mean_images = @intCast(job.seeds.len);
        }
        if (job.outer_skips == 0) return reuse;
        reuse.outer_skips = job.outer_skips;
        reuse.feature = steps.feature;
        reuse.deep = if (steps.takesFeature(job, step, signals)) .reuse else .keep;
        if (reuse.deep == .keep) steps.change = 0;
        steps.has_feature = true;
        return reuse;
    }

    fn takesFeature(
        steps: *StepReuses,
        job: *const Job,
        step: usize,
        signals: *const Signals,
    ) bool {
        const planned = job.reuseAt(step);
        if (!steps.has_feature or planned.cross == .keep) return false;
        return switch (planned.deep) {
            .full => false,
            .cached => true,
            .adaptive => steps.staysBelow(job.reuse_threshold, signals),
        };
    }

    /// As First-Block-Cache and TeaCache accumulate it; this step is taken to change as much as the
    /// last one did.
    fn staysBelow(steps: *StepReuses, threshold: f32, signals: *const Signals) bool {
        steps.change += signals.clean_change orelse return false;
        return steps.change < threshold;
    }
};

// --- internal ---

/// Of the UNet's input on a rank that is not idle.
pub fn sampleShape(rank: *const Rank, layout: *const Layout) Shape {
    var shape = rank.latentShape(@intCast(rank.job.seeds.len));
    shape.batch *= layout.branchesPerRank();
    shape.rows = layout.patches.list[layout.patchOf(rank.index)].row_count;
    return shape;
}
