"""mini-sdxl's modules: SDXL's architecture and config keys, with small sizes."""

import torch
from diffusers import AutoencoderKL, EulerDiscreteScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

TEXT_WIDTHS = (64, 128)
UNET_WIDTHS = (32, 64, 160)
VAE_WIDTHS = (16, 32, 64, 96)
TIME_WIDTH = 32  # of each of the six numbers in time_ids


def text_encoders(vocabulary_size):
    def config(width, act):
        return CLIPTextConfig(
            vocab_size=vocabulary_size, hidden_size=width, intermediate_size=4 * width,
            projection_dim=width, num_hidden_layers=2, num_attention_heads=width // 32,
            max_position_embeddings=77, hidden_act=act, bos_token_id=vocabulary_size - 2,
            eos_token_id=vocabulary_size - 1, pad_token_id=1)

    first, second = TEXT_WIDTHS
    return (CLIPTextModel(config(first, "quick_gelu")),
            CLIPTextModelWithProjection(config(second, "gelu")))


def unet():
    context = sum(TEXT_WIDTHS)
    model = UNet2DConditionModel(
        sample_size=32, in_channels=4, out_channels=4, layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=UNET_WIDTHS,
        attention_head_dim=tuple(max(1, width // 32) for width in UNET_WIDTHS),
        transformer_layers_per_block=(1, 1, 1), cross_attention_dim=context,
        use_linear_projection=True, addition_embed_type="text_time",
        addition_time_embed_dim=TIME_WIDTH, norm_num_groups=16,
        projection_class_embeddings_input_dim=TEXT_WIDTHS[1] + 6 * TIME_WIDTH)
    # Every branch starts as nothing added: short trainings get further.
    for name, module in model.named_modules():
        if name.endswith(("conv2", "to_out.0", "ff.net.2", "conv_out")):
            torch.nn.init.zeros_(module.weight)
            torch.nn.init.zeros_(module.bias)
    return model


def autoencoder():
    model = AutoencoderKL(
        in_channels=3, out_channels=3, latent_channels=4, block_out_channels=VAE_WIDTHS,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1, norm_num_groups=8, scaling_factor=1.0, sample_size=256,
        force_upcast=True)
    # The spread of a latent is a constant: training adds noise of its own.
    with torch.no_grad():
        model.quant_conv.weight[4:].zero_()
        model.quant_conv.bias[4:].fill_(-8.0)
    return model


def scheduler():
    return EulerDiscreteScheduler(
        num_train_timesteps=1000, beta_start=0.00085, beta_end=0.012,
        beta_schedule="scaled_linear", steps_offset=1, timestep_spacing="leading",
        prediction_type="epsilon")


def alphas_cumprod():
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    return torch.cumprod(1 - betas, 0)
