//! The engines of cuDNN that can run an operation graph, each with its execution plan and the
//! workspace that it needs.

const std = @import("std");
const cudnn = @import("../../nvidia/cudnn.zig");
const descriptors = @import("../../nvidia/cudnn_descriptors.zig");
const measure = @import("measure.zig");
const Cudnn = cudnn.Cudnn;
const Descriptor = cudnn.Descriptor;
const Error = descriptors.Error;
const Parts = descriptors.Parts;
const createAlone = descriptors.createAlone;
const finalize = descriptors.finalize;
const get = descriptors.get;
const getMany = descriptors.getMany;
const set = descriptors.set;

/// Engine configurations that the library is asked for; some of them will not do.
const config_count_max = 16;
const knob_count_max = 16;
const name_bytes_max = 256;
const note_count_max = 16;

/// Engines that can run a graph, each with its plan.
pub const Engines = struct {
    library: *const Cudnn,
    gpu: cudnn.Gpu,
    plans: [measure.alternatives_max]Descriptor = undefined,
    workspaces: [measure.alternatives_max]usize = undefined,
    names: [measure.alternatives_max][name_bytes_max]u8 = undefined,
    name_lengths: [measure.alternatives_max]usize = undefined,
    count: usize = 0,
    /// Of these, compiled when their plans were made.
    compiled_count: usize = 0,
    /// The only one is the one that was asked for by name.
    is_wanted: bool = false,

    pub fn deinit(engines: *Engines) void {
        for (engines.plans[0..engines.count]) |plan| {
            _ = engines.library.cudnnBackendDestroyDescriptor(plan);
        }
    }

    /// Up to `most` engines that fit the workspace, likely ones first, at least one; or the one
    /// named `wanted` alone, if the library still offers it.
    pub fn find(
        engines: *Engines,
        graph: Descriptor,
        workspace_bytes: usize,
        wanted: ?[]const u8,
        most: usize,
    ) Error!void {
        if (wanted) |name| {
            for ([_]cudnn.HeurMode{ .a, .fallback }) |mode| {
                try engines.ask(graph, mode, workspace_bytes, name, 1);
                if (engines.count > 0) {
                    engines.is_wanted = true;
                    return;
                }
            }
        }
        for ([_]cudnn.HeurMode{ .a, .fallback }) |mode| {
            try engines.ask(graph, mode, workspace_bytes, null, most);
            if (engines.count > 0) return;
        }
        return engines.library.expect(.cudnnBackendFinalize, .not_supported);
    }

    pub fn nameOf(engines: *const Engines, index: usize) []const u8 {
        return engines.names[index][0..engines.name_lengths[index]];
    }

    /// Hands out a plan; the others go with `deinit`.
    pub fn take(engines: *Engines, index: usize) Descriptor {
        const plan = engines.plans[index];
        engines.count -= 1;
        engines.plans[index] = engines.plans[engines.count];
        return plan;
    }

    fn ask(
        engines: *Engines,
        graph: Descriptor,
        mode: cudnn.HeurMode,
        workspace_bytes: usize,
        wanted: ?[]const u8,
        most: usize,
    ) Error!void {
        const library = engines.library;
        var parts: Parts = .{ .library = library };
        defer parts.deinit();
        const heuristics = try parts.create(.engine_heuristics);
        const graphs = [_]Descriptor{graph};
        const modes = [_]cudnn.HeurMode{mode};
        if (engines.gpu == .description) {
            const described = [_]Descriptor{engines.gpu.description};
            try set(library, heuristics, .engineheur_deviceprop, .backend_descriptor, &described);
        }
        try set(library, heuristics, .engineheur_operation_graph, .backend_descriptor, &graphs);
        try set(library, heuristics, .engineheur_mode, .heur_mode, &modes);
        // Nothing to offer in this mode.
        finalize(library, heuristics) catch return;
        var configs: [config_count_max]Descriptor = undefined;
        for (&configs) |*config| config.* = try parts.create(.engine_config);
        const results: cudnn.Attribute = .engineheur_results;
        const found = getMany(library, heuristics, results, .backend_descriptor, &configs) catch
            return;
        for (configs[0..found]) |config| {
            if (engines.count == most) return;
            try engines.add(config, workspace_bytes, wanted);
        }
    }

    /// Adds what can be planned and fits; the rest is passed over.
    fn add(
        engines: *Engines,
        config: Descriptor,
        workspace_bytes: usize,
        wanted: ?[]const u8,
    ) Error!void {
        const i = engines.count;
        const name = nameConfig(engines.library, config, &engines.names[i]) catch return;
        if (wanted) |other| if (!std.mem.eql(u8, name, other)) return;
        engines.name_lengths[i] = name.len;
        const library = engines.library;
        const is_compiled = isCompiled(library, config) catch false;
        // A kernel that is there beats one that must be compiled first.
        if (is_compiled and engines.compiled_count < engines.count) return;
        const plan = try createAlone(library, .execution_plan);
        const need = makePlan(library, engines.gpu, plan, config) catch workspace_bytes + 1;
        if (need > workspace_bytes) {
            _ = library.cudnnBackendDestroyDescriptor(plan);
            return;
        }
        engines.plans[i] = plan;
        engines.workspaces[i] = need;
        engines.count += 1;
        engines.compiled_count += @intFromBool(is_compiled);
    }
};

// --- internal ---

/// Finalizes a plan and returns the bytes of workspace that it needs.
fn makePlan(
    library: *const Cudnn,
    gpu: cudnn.Gpu,
    plan: Descriptor,
    config: Descriptor,
) Error!usize {
    const configs = [_]Descriptor{config};
    switch (gpu) {
        .handle => |handle| {
            try set(library, plan, .execution_plan_handle, .handle, &[_]cudnn.Handle{handle});
        },
        .description => |description| {
            const described = [_]Descriptor{description};
            try set(library, plan, .execution_plan_deviceprop, .backend_descriptor, &described);
        },
    }
    try set(library, plan, .execution_plan_engine_config, .backend_descriptor, &configs);
    try finalize(library, plan);
    var bytes: i64 = 0;
    try get(library, plan, .execution_plan_workspace_size, .int64, &bytes);
    return if (bytes >= 0) @intCast(bytes) else error.Refused;
}

/// Whether making a plan compiles a kernel.
fn isCompiled(library: *const Cudnn, config: Descriptor) Error!bool {
    var parts: Parts = .{ .library = library };
    defer parts.deinit();
    var engine = try parts.create(.engine);
    try get(library, config, .enginecfg_engine, .backend_descriptor, &engine);
    var notes: [note_count_max]cudnn.BehaviorNote = undefined;
    const found = try getMany(library, engine, .engine_behavior_note, .behavior_note, &notes);
    return std.mem.indexOfScalar(cudnn.BehaviorNote, notes[0..found], .runtime_compilation) != null;
}

/// "engine 38 2=1 11=0": the engine's number and its knobs, the same in every process for one
/// version of the library on one kind of GPU.
fn nameConfig(
    library: *const Cudnn,
    config: Descriptor,
    buffer: *[name_bytes_max]u8,
) Error![]const u8 {
    var parts: Parts = .{ .library = library };
    defer parts.deinit();
    var engine = try parts.create(.engine);
    try get(library, config, .enginecfg_engine, .backend_descriptor, &engine);
    var index: i64 = 0;
    try get(library, engine, .engine_global_index, .int64, &index);
    var w: std.Io.Writer = .fixed(buffer);
    w.print("engine {d}", .{index}) catch return error.Refused;
    var knobs: [knob_count_max]Descriptor = undefined;
    for (&knobs) |*knob| knob.* = try parts.create(.knob_choice);
    const choices: cudnn.Attribute = .enginecfg_knob_choices;
    const found = try getMany(library, config, choices, .backend_descriptor, &knobs);
    for (knobs[0..found]) |knob| {
        var kind: c_int = 0;
        var value: i64 = 0;
        try get(library, knob, .knob_choice_knob_type, .knob_type, &kind);
        try get(library, knob, .knob_choice_knob_value, .int64, &value);
        w.print(" {d}={d}", .{ kind, value }) catch return error.Refused;
    }
    return w.buffered();
}
