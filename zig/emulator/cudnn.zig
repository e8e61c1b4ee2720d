//! cuDNN's backend on the CPU: descriptors that are made, given attributes and finalized, engines
//! that differ in the workspace they need and give the same bits, and checks as strict as the
//! library's own. What a graph means and computes is in cudnn_graph.zig.

const std = @import("std");
const attentions = @import("cudnn_sdpa.zig");
const cudnn = @import("../nvidia/cudnn.zig");
const descriptors = @import("cudnn_descriptor.zig");
const driver = @import("../nvidia/driver.zig");
const graphs = @import("cudnn_graph.zig");
const library = @import("library.zig");
const Descriptor = descriptors.Descriptor;
const Status = cudnn.Status;

const emulated_version = 92400;
const emulated_cudart_version = 13000;

const Handle = struct {
    magic: u64 = live,
    device: u32,
    stream: ?driver.Stream = null,

    const live = 0x6375_646e_6e6c_6976;

    fn of(handle: ?cudnn.Handle) ?*Handle {
        const found: *Handle = @ptrCast(@alignCast(handle orelse return null));
        return if (found.magic == live) found else null;
    }
};

/// For tests: 0 leaves only engines that run a bare convolution, as on a GPU or with a library that
/// cannot fuse; 1 those that compile fused kernels; 2 is everything.
export fn bxl_emulator_allow_fusion(allowed: u32) void {
    graphs.fusion_allowed = @enumFromInt(allowed);
}

/// For tests: 0 leaves no engine for attentions, as in libraries before 9.13.
export fn bxl_emulator_allow_attention(is_allowed: u32) void {
    is_attention_allowed = is_allowed != 0;
}

var is_attention_allowed = true;

export fn cudnnGetVersion() usize {
    return emulated_version;
}

export fn cudnnGetCudartVersion() usize {
    return emulated_cudart_version;
}

export fn cudnnGetErrorString(status: Status) ?[*:0]const u8 {
    return switch (@intFromEnum(status)) {
        0 => "CUDNN_STATUS_SUCCESS",
        1000...1999 => "CUDNN_STATUS_NOT_INITIALIZED",
        2000...2999 => "CUDNN_STATUS_BAD_PARAM",
        3000...3999 => "CUDNN_STATUS_NOT_SUPPORTED",
        5000...5999 => "CUDNN_STATUS_EXECUTION_FAILED",
        else => "CUDNN_STATUS_INTERNAL_ERROR",
    };
}

export fn cudnnGetLastErrorString(message: ?[*]u8, bytes: usize) void {
    const out = message orelse return;
    if (bytes > 0) out[0] = 0;
}

export fn cudnnCreate(out: ?*?cudnn.Handle) Status {
    const handle_out = out orelse return .bad_param_null_pointer;
    const device = library.currentDevice() orelse return .not_initialized;
    const handle = library.allocator.create(Handle) catch return .internal_error;
    handle.* = .{ .device = device };
    handle_out.* = @ptrCast(handle);
    return .success;
}

/// The memory is kept, so that a late use of the handle is refused.
export fn cudnnDestroy(handle: ?cudnn.Handle) Status {
    const found = Handle.of(handle) orelse return .bad_param;
    found.magic = 0;
    return .success;
}

export fn cudnnSetStream(handle: ?cudnn.Handle, stream: ?driver.Stream) Status {
    const found = Handle.of(handle) orelse return .bad_param;
    if (stream) |queue| {
        if (library.deviceOf(queue) != found.device) return .bad_param;
    }
    found.stream = stream;
    return .success;
}

export fn cudnnBackendCreateDescriptor(
    kind: cudnn.DescriptorType,
    out: ?*?cudnn.Descriptor,
) Status {
    const descriptor_out = out orelse return .bad_param_null_pointer;
    const made = Descriptor.create(kind) catch |err| return switch (err) {
        error.OutOfMemory => .internal_error,
        error.Unknown => .not_supported,
    };
    descriptor_out.* = @ptrCast(made);
    return .success;
}

export fn cudnnBackendDestroyDescriptor(handle: ?cudnn.Descriptor) Status {
    if (handle == null) return .success;
    const descriptor = Descriptor.of(handle) orelse return .bad_param;
    descriptor.drop();
    return .success;
}

export fn cudnnBackendSetAttribute(
    handle: ?cudnn.Descriptor,
    attribute: cudnn.Attribute,
    kind: cudnn.AttributeType,
    count: i64,
    elements: ?*const anyopaque,
) Status {
    const descriptor = Descriptor.of(handle) orelse return .bad_param;
    // What is finalized cannot be changed.
    if (descriptor.is_finalized) return .not_initialized;
    const from = elements orelse return .bad_param_null_pointer;
    if (count <= 0) return .bad_param;
    return descriptor.set(attribute, kind, @intCast(count), @ptrCast(from));
}

export fn cudnnBackendGetAttribute(
    handle: ?cudnn.Descriptor,
    attribute: cudnn.Attribute,
    kind: cudnn.AttributeType,
    requested: i64,
    count: ?*i64,
    elements: ?*anyopaque,
) Status {
    const descriptor = Descriptor.of(handle) orelse return .bad_param;
    if (!descriptor.is_finalized) return .bad_param_not_finalized;
    const count_out = count orelse return .bad_param_null_pointer;
    switch (attribute) {
        .engineheur_results => {
            if (kind != .backend_descriptor) return .bad_param_attribute_type;
            const targets = elements orelse return .bad_param_null_pointer;
            return listEngines(descriptor, @ptrCast(@alignCast(targets)), requested, count_out);
        },
        .enginecfg_engine => {
            if (requested < 1) return .bad_param;
            const target: *?cudnn.Descriptor =
                @ptrCast(@alignCast(elements orelse return .bad_param_null_pointer));
            const engine = Descriptor.of(target.*) orelse return .bad_param;
            if (engine.kind != .engine) return .bad_param_descriptor_type;
            engine.engine = descriptor.engine;
            if (descriptor.graph) |graph| engine.setGraph(graph);
            engine.is_finalized = true;
            count_out.* = 1;
            return .success;
        },
        .enginecfg_knob_choices => {
            count_out.* = 0;
            return .success;
        },
        .engine_behavior_note => {
            const graph = descriptor.graph orelse return .bad_param;
            count_out.* = 0;
            if (graph.attention == null and graph.program.?.fusion() != .compiled) return .success;
            const note = @intFromEnum(cudnn.BehaviorNote.runtime_compilation);
            return give(c_int, note, requested, count_out, elements);
        },
        .engine_global_index => return give(i64, descriptor.engine, requested, count_out, elements),
        .execution_plan_json_representation => {
            if (kind != .char) return .bad_param_attribute_type;
            return writePlan(descriptor, requested, count_out, elements);
        },
        .execution_plan_workspace_size => {
            const bytes: i64 = @intCast(descriptor.workspace_bytes);
            return give(i64, bytes, requested, count_out, elements);
        },
        else => return .not_supported,
    }
}

export fn cudnnBackendFinalize(handle: ?cudnn.Descriptor) Status {
    const descriptor = Descriptor.of(handle) orelse return .bad_param;
    if (descriptor.is_finalized) return .bad_param;
    const status: Status = switch (descriptor.kind) {
        .tensor => graphs.checkTensor(descriptor),
        .operation_graph => graphs.finalize(descriptor),
        .engine_heuristics => finalizeHeuristics(descriptor),
        .execution_plan => finalizePlan(descriptor),
        .engine, .engine_config, .knob_choice => .bad_param,
        else => .success,
    };
    descriptor.is_finalized = status == .success;
    return status;
}

export fn cudnnBackendExecute(
    handle: ?cudnn.Handle,
    plan_handle: ?cudnn.Descriptor,
    pack_handle: ?cudnn.Descriptor,
) Status {
    const owner = Handle.of(handle) orelse return .bad_param;
    const plan = Descriptor.of(plan_handle) orelse return .bad_param;
    const pack = Descriptor.of(pack_handle) orelse return .bad_param;
    if (plan.kind != .execution_plan or pack.kind != .variant_pack) {
        return .bad_param_descriptor_type;
    }
    if (!plan.is_finalized or !pack.is_finalized) return .bad_param_not_finalized;
    const stream = owner.stream orelse return .bad_param;
    return graphs.execute(plan, pack, stream, owner.device);
}

// --- internal ---

/// Bytes of workspace per output element and input channel count; the last does not come to a plan.
const Engine = struct { index: i64, workspace_per_output: usize, is_broken: bool = false };
const engines = [_]Engine{
    .{ .index = 38, .workspace_per_output = 4, .is_broken = true },
    .{ .index = 11, .workspace_per_output = 0 },
    .{ .index = 57, .workspace_per_output = 16 },
    .{ .index = 4, .workspace_per_output = 0 },
};
/// What is offered when nothing else is: bare convolutions alone.
const fallback = Engine{ .index = 1, .workspace_per_output = 0 };

/// Of attentions.
const attention_engine = Engine{ .index = 9, .workspace_per_output = 0 };

fn engineOf(index: i64) ?Engine {
    if (index == attention_engine.index) return attention_engine;
    if (index == fallback.index) return fallback;
    for (engines) |engine| if (engine.index == index) return engine;
    return null;
}

fn finalizeHeuristics(descriptor: *Descriptor) Status {
    const graph = descriptor.get(.engineheur_operation_graph, .operation_graph) orelse
        return .bad_param;
    const mode = descriptor.value(cudnn.HeurMode, .engineheur_mode) orelse return .bad_param;
    if (graph.attention != null) {
        return if (mode != .fallback and is_attention_allowed) .success else .not_supported;
    }
    if (graph.program.?.step_count == 0) return .success;
    const is_offered = mode != .fallback and switch (graph.program.?.fusion()) {
        .none => false,
        .compiled => graphs.fusion_allowed != .none,
        .precompiled => graphs.fusion_allowed == .precompiled,
    };
    return if (is_offered) .success else .not_supported_graph_pattern;
}

fn listEngines(
    heuristics: *Descriptor,
    targets: [*]?cudnn.Descriptor,
    requested: i64,
    count: *i64,
) Status {
    const graph = heuristics.get(.engineheur_operation_graph, .operation_graph).?;
    const mode = heuristics.value(cudnn.HeurMode, .engineheur_mode).?;
    const offered: []const Engine = if (graph.attention != null)
        &.{attention_engine}
    else if (mode == .fallback) &.{fallback} else &engines;
    count.* = 0;
    for (offered) |engine| {
        if (count.* == requested) break;
        const config = Descriptor.of(targets[@intCast(count.*)]) orelse return .bad_param;
        if (config.kind != .engine_config) return .bad_param_descriptor_type;
        config.engine = engine.index;
        config.setGraph(graph);
        config.is_finalized = true;
        count.* += 1;
    }
    return .success;
}

fn finalizePlan(plan: *Descriptor) Status {
    const handle = plan.value(?cudnn.Handle, .execution_plan_handle) orelse return .bad_param;
    if (Handle.of(handle) == null) return .bad_param;
    if (plan.values(u8, .execution_plan_json_representation)) |text| return readPlan(plan, text);
    const config = plan.get(.execution_plan_engine_config, .engine_config) orelse
        return .bad_param;
    const engine = engineOf(config.engine) orelse return .bad_param;
    if (engine.is_broken) return .not_supported_arch_mismatch;
    const graph = config.graph orelse return .bad_param;
    plan.setGraph(graph);
    plan.workspace_bytes = if (graph.attention) |*attention|
        attention.workspaceBytes()
    else
        engine.workspace_per_output * graph.program.?.outputCount();
    return .success;
}

/// Of an attention alone: its program in hexadecimal, in the place of the library's JSON.
const plan_prefix = "{\"emulated\":\"";
const plan_suffix = "\"}";
const plan_bytes = plan_prefix.len + 2 * @sizeOf(attentions.Program) + plan_suffix.len;

fn writePlan(plan: *Descriptor, requested: i64, count: *i64, elements: ?*anyopaque) Status {
    const graph = plan.graph orelse return .not_supported;
    const program = &(graph.attention orelse return .not_supported);
    count.* = plan_bytes;
    if (requested == 0) return .success;
    if (requested < plan_bytes) return .bad_param_size_insufficient;
    const out: [*]u8 = @ptrCast(elements orelse return .bad_param_null_pointer);
    var w: std.Io.Writer = .fixed(out[0..plan_bytes]);
    const bytes = std.mem.asBytes(program);
    w.print("{s}{x}{s}", .{ plan_prefix, bytes, plan_suffix }) catch return .internal_error;
    return .success;
}

fn readPlan(plan: *Descriptor, text: []const u8) Status {
    if (text.len != plan_bytes or !std.mem.startsWith(u8, text, plan_prefix)) return .bad_param;
    const graph = Descriptor.create(.operation_graph) catch return .internal_error;
    defer graph.drop();
    graph.attention = undefined;
    const digits = text[plan_prefix.len .. text.len - plan_suffix.len];
    _ = std.fmt.hexToBytes(std.mem.asBytes(&graph.attention.?), digits) catch return .bad_param;
    graph.is_finalized = true;
    plan.setGraph(graph);
    plan.workspace_bytes = graph.attention.?.workspaceBytes();
    return .success;
}

/// One value to the caller.
fn give(comptime T: type, value: T, requested: i64, count: *i64, elements: ?*anyopaque) Status {
    if (requested < 1) return .bad_param;
    const target: *T = @ptrCast(@alignCast(elements orelse return .bad_param_null_pointer));
    target.* = value;
    count.* = 1;
    return .success;
}
