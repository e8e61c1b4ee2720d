//! What the operating system offers, behind functions that also work where it does not:
//!   control_groups  the cgroups whose limits apply to this process
//!   cores           cores that it may keep busy: affinity and cgroup quota
//!   fibre           switching between stacks, for ranks that share a core
//!   heap            the library's allocator
//!   huge_pages      large allocations on 2 MiB pages
//!   leaks           the same allocator, or one that finds what was never freed
//!   memory          memory that it may still take
//!   placement       which cores its threads run on, beside other programs

pub const control_groups = @import("system/control_groups.zig");
pub const cores = @import("system/cores.zig");
pub const fibre = @import("system/fibre.zig");
pub const heap = @import("system/heap.zig");
pub const huge_pages = @import("system/huge_pages.zig");
pub const leaks = @import("system/leaks.zig");
pub const memory = @import("system/memory.zig");
pub const placement = @import("system/placement.zig");

test {
    _ = control_groups;
    _ = cores;
    _ = fibre;
    _ = heap;
    _ = huge_pages;
    _ = memory;
    _ = placement;
}
