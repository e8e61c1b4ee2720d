//! The stages of an image: what progress reports, and what traced operations are attributed to.

pub const Stage = enum(u32) {
    load = 0,
    text = 1,
    denoise = 2,
    decode = 3,
    encode = 4,
    /// Merging adapters into the weights, before the first of the other stages.
    adapt = 5,
    /// Tiles of an image by an upscaler.
    upscale = 6,
};
