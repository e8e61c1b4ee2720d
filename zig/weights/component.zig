//! The networks of a model that have weights of their own.

pub const Component = enum(u32) {
    text_encoder = 0,
    text_encoder_2 = 1,
    unet = 2,
    vae = 3,
    /// AutoencoderTiny's decoder, for previews.
    taesd = 4,
};
