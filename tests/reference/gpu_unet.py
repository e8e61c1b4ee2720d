"""SDXL's UNet in plain PyTorch, for machines without diffusers: the same operations in the same
order as diffusers' UNet2DConditionModel, so that its time can stand for that one's. The weights are
random; names are the module tree's own. `check` below holds it to diffusers where that is there:

    gpu_unet.py     compares both on a tiny config and prints the relative difference
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

SDXL = {
    "channels": (320, 640, 1280),
    "depths": (0, 2, 10),
    "head_size": 64,
    "context": 2048,
    "added": 2816,
    "groups": 32,
}


class Resnet(nn.Module):
    def __init__(self, c_in, c_out, time, groups):
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(groups, c_in), nn.GroupNorm(groups, c_out)
        self.conv1 = nn.Conv2d(c_in, c_out, 3, padding=1)
        self.time_emb_proj = nn.Linear(time, c_out)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, padding=1)
        self.conv_shortcut = nn.Conv2d(c_in, c_out, 1) if c_in != c_out else nn.Identity()

    def forward(self, x, time):
        h = self.conv1(F.silu(self.norm1(x)))
        h = h + self.time_emb_proj(F.silu(time))[:, :, None, None]
        h = self.conv2(F.silu(self.norm2(h)))
        return self.conv_shortcut(x) + h


class Attention(nn.Module):
    def __init__(self, width, context, head_size):
        super().__init__()
        self.heads = width // head_size
        self.to_q = nn.Linear(width, width, bias=False)
        self.to_k = nn.Linear(context, width, bias=False)
        self.to_v = nn.Linear(context, width, bias=False)
        self.to_out = nn.ModuleList([nn.Linear(width, width)])

    def forward(self, x, context):
        split = lambda t: t.unflatten(-1, (self.heads, -1)).transpose(1, 2)
        q, k, v = split(self.to_q(x)), split(self.to_k(context)), split(self.to_v(context))
        h = F.scaled_dot_product_attention(q, k, v)
        return self.to_out[0](h.transpose(1, 2).flatten(2))


class Geglu(nn.Module):
    def __init__(self, width, inner):
        super().__init__()
        self.proj = nn.Linear(width, 2 * inner)

    def forward(self, x):
        value, gate = self.proj(x).chunk(2, dim=-1)
        return value * F.gelu(gate)


class FeedForward(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.net = nn.ModuleList(
            [Geglu(width, 4 * width), nn.Identity(), nn.Linear(4 * width, width)]
        )

    def forward(self, x):
        return self.net[2](self.net[0](x))


class Block(nn.Module):
    def __init__(self, width, context, head_size):
        super().__init__()
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(width) for _ in range(3))
        self.attn1 = Attention(width, width, head_size)
        self.attn2 = Attention(width, context, head_size)
        self.ff = FeedForward(width)

    def forward(self, x, context):
        h = self.norm1(x)
        x = self.attn1(h, h) + x
        x = self.attn2(self.norm2(x), context) + x
        return self.ff(self.norm3(x)) + x


class Transformer(nn.Module):
    def __init__(self, width, depth, c):
        super().__init__()
        self.norm = nn.GroupNorm(c["groups"], width, eps=1e-6)
        self.proj_in, self.proj_out = nn.Linear(width, width), nn.Linear(width, width)
        self.transformer_blocks = nn.ModuleList(
            Block(width, c["context"], c["head_size"]) for _ in range(depth)
        )

    def forward(self, x, context):
        rows, columns = x.shape[2:]
        h = self.norm(x).permute(0, 2, 3, 1).flatten(1, 2)
        h = self.proj_in(h)
        for block in self.transformer_blocks:
            h = block(h, context)
        h = self.proj_out(h).unflatten(1, (rows, columns)).permute(0, 3, 1, 2)
        return h + x


class Conv(nn.Module):
    """A sampler's convolution; `conv` is its name in diffusers."""

    def __init__(self, width, stride):
        super().__init__()
        self.stride = stride
        self.conv = nn.Conv2d(width, width, 3, stride=stride, padding=1)

    def forward(self, x):
        return self.conv(x if self.stride == 2 else F.interpolate(x, scale_factor=2.0))


class Level(nn.Module):
    """Resnets with their transformers, and a sampler behind them."""

    def __init__(self, inputs, width, depth, c, time, sampler, stride):
        super().__init__()
        self.resnets = nn.ModuleList(Resnet(n, width, time, c["groups"]) for n in inputs)
        count = len(inputs) if depth else 0
        self.attentions = nn.ModuleList(Transformer(width, depth, c) for _ in range(count))
        if sampler:
            setattr(self, sampler, nn.ModuleList([Conv(width, stride)]))
        self.sampler = sampler

    def layer(self, i, x, time, context):
        x = self.resnets[i](x, time)
        return self.attentions[i](x, context) if len(self.attentions) else x

    def sample(self, x):
        return getattr(self, self.sampler)[0](x)


class Embedding(nn.Module):
    def __init__(self, c_in, c_out):
        super().__init__()
        self.linear_1, self.linear_2 = nn.Linear(c_in, c_out), nn.Linear(c_out, c_out)

    def forward(self, x):
        return self.linear_2(F.silu(self.linear_1(x)))


class Middle(nn.Module):
    def __init__(self, width, depth, c, time):
        super().__init__()
        self.resnets = nn.ModuleList(Resnet(width, width, time, c["groups"]) for _ in range(2))
        self.attentions = nn.ModuleList([Transformer(width, depth, c)])

    def forward(self, x, time, context):
        x = self.attentions[0](self.resnets[0](x, time), context)
        return self.resnets[1](x, time)


def sinusoids(values, width):
    half = width // 2
    steps = torch.arange(half, device=values.device, dtype=torch.float32)
    angles = values.float()[:, None] * torch.exp(-math.log(10000) * steps / half)
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


class Unet(nn.Module):
    def __init__(self, c=SDXL, time_ids_width=256):
        super().__init__()
        self.width, self.time_ids_width = c["channels"][0], time_ids_width
        widths, depths = c["channels"], c["depths"]
        time, last = 4 * widths[0], len(widths) - 1
        self.conv_in = nn.Conv2d(4, widths[0], 3, padding=1)
        self.time_embedding = Embedding(widths[0], time)
        self.add_embedding = Embedding(c["added"], time)
        self.down_blocks, self.up_blocks = nn.ModuleList(), nn.ModuleList()
        skips, before = [widths[0]], widths[0]
        for i, (width, depth) in enumerate(zip(widths, depths)):
            sampler = "downsamplers" if i < last else ""
            self.down_blocks.append(Level([before, width], width, depth, c, time, sampler, 2))
            skips += [width] * (3 if i < last else 2)
            before = width
        self.mid_block = Middle(before, depths[-1], c, time)
        for i, (width, depth) in enumerate(zip(widths[::-1], depths[::-1])):
            inputs = [(before if j == 0 else width) + skips.pop() for j in range(3)]
            sampler = "upsamplers" if i < last else ""
            self.up_blocks.append(Level(inputs, width, depth, c, time, sampler, 1))
            before = width
        self.conv_norm_out = nn.GroupNorm(c["groups"], widths[0])
        self.conv_out = nn.Conv2d(widths[0], 4, 3, padding=1)

    def forward(self, x, timestep, context, pooled, time_ids):
        time = self.time_embedding(sinusoids(timestep.expand(len(x)), self.width).to(x.dtype))
        ids = sinusoids(time_ids.flatten(), self.time_ids_width).reshape(len(x), -1)
        time = time + self.add_embedding(torch.cat([pooled, ids.to(x.dtype)], dim=-1))
        x = self.conv_in(x)
        skips = [x]
        for level in self.down_blocks:
            for i in range(len(level.resnets)):
                x = level.layer(i, x, time, context)
                skips.append(x)
            if level.sampler:
                x = level.sample(x)
                skips.append(x)
        x = self.mid_block(x, time, context)
        for level in self.up_blocks:
            for i in range(len(level.resnets)):
                x = level.layer(i, torch.cat([x, skips.pop()], dim=1), time, context)
            if level.sampler:
                x = level.sample(x)
        return self.conv_out(F.silu(self.conv_norm_out(x)))


def check():
    """The relative difference from diffusers' UNet with the same weights."""
    from diffusers import UNet2DConditionModel

    tiny = {"channels": (32, 64), "depths": (0, 2), "head_size": 16, "context": 24}
    tiny = {**tiny, "added": 6 * 8 + 20, "groups": 8}
    theirs = UNet2DConditionModel(
        block_out_channels=tiny["channels"],
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 2),
        attention_head_dim=(2, 4),
        cross_attention_dim=tiny["context"],
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=tiny["added"],
        norm_num_groups=tiny["groups"],
        use_linear_projection=True,
    ).eval()
    ours = Unet(tiny, time_ids_width=8).eval()
    ours.load_state_dict(theirs.state_dict())
    x, context, pooled = torch.randn(2, 4, 16, 24), torch.randn(2, 7, 24), torch.randn(2, 20)
    ids, timestep = torch.full((2, 6), 64.0), torch.tensor(601.0)
    added = {"text_embeds": pooled, "time_ids": ids}
    with torch.no_grad():
        wanted = theirs(x, timestep, context, added_cond_kwargs=added).sample
        return ((ours(x, timestep, context, pooled, ids) - wanted).norm() / wanted.norm()).item()


if __name__ == "__main__":
    print(check())
