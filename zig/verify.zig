//! `verify`: does this GPU compute right? Every operation of the CUDA backend against the CPU
//! backend on random shapes, networks against recorded numbers, images of one rank and two against
//! the CPU's. The tests of the CUDA path run the same checks on the emulated driver.
//!
//! In reading order:
//!   verify/options.zig     what is asked for
//!   verify/run.zig         runs the checks one after the other, as run_*.zig have them
//!   verify/report.zig      their lines, the summary, the JSON
//!   verify/operations.zig  every comparison of an operation; verify/ops/ has them
//!   verify/check.zig, pair.zig, tolerance.zig, device.zig  one comparison, and what it needs
//!   verify/golden.zig      a tiny model, made here; verify/records.zig what diffusers makes of it
//!   verify/networks.zig, images.zig, sessions.zig  what is computed with it, and where
//!   verify/background.zig  a run on a thread of its own, for the ABI
//!   verify/program.zig     the command of the executable `basedxl-gpu`

pub const background = @import("verify/background.zig");
pub const operations = @import("verify/operations.zig");
pub const Options = @import("verify/options.zig").Options;
pub const pairs = @import("verify/pair.zig");
pub const program = @import("verify/program.zig");
pub const Report = @import("verify/report.zig").Report;
pub const run = @import("verify/run.zig").run;

test {
    _ = @import("verify/background.zig");
    _ = @import("verify/options.zig");
    _ = @import("verify/tolerance.zig");
}
