"""Records upscalers and torch's interpolate: upscalers.* in tests/fixtures.

For tests/native/upscalers.test.ts and tests/control/latent-resize.test.ts. Run from the repository
root: python tests/reference/make_upscalers.py
The networks are written here from their descriptions: RRDBNet (ESRGAN, arXiv 1809.00219, with the
pixel unshuffle of Real-ESRGAN, arXiv 2107.10833) and SRVGGNetCompact (Real-ESRGAN's
docs/anime_video_model.md). Weights and images are formulas.
"""

import torch
import torch.nn.functional as F
from formula_weights import formula_tensor, seed_of, uniform
from safetensors.torch import save_file
from thin import formula_input, thin
from torch import nn

torch.set_num_threads(1)
torch.set_grad_enabled(False)


class DenseBlock(nn.Module):
    def __init__(self, features, growth):
        super().__init__()
        for i in range(5):
            out = features if i == 4 else growth
            setattr(self, f"conv{i + 1}", nn.Conv2d(features + i * growth, out, 3, 1, 1))

    def forward(self, x):
        parts = [x]
        for i in range(4):
            conv = getattr(self, f"conv{i + 1}")
            parts.append(F.leaky_relu(conv(torch.cat(parts, 1)), 0.2))
        return self.conv5(torch.cat(parts, 1)) * 0.2 + x


class Block(nn.Module):
    def __init__(self, features, growth):
        super().__init__()
        for i in range(3):
            setattr(self, f"rdb{i + 1}", DenseBlock(features, growth))

    def forward(self, x):
        return self.rdb3(self.rdb2(self.rdb1(x))) * 0.2 + x


class RRDBNet(nn.Module):
    def __init__(self, blocks, features, growth, unshuffle, upsamples):
        super().__init__()
        self.unshuffle, self.upsamples = unshuffle, upsamples
        self.conv_first = nn.Conv2d(3 * unshuffle**2, features, 3, 1, 1)
        self.body = nn.Sequential(*[Block(features, growth) for _ in range(blocks)])
        self.conv_body = nn.Conv2d(features, features, 3, 1, 1)
        for i in range(upsamples):
            setattr(self, f"conv_up{i + 1}", nn.Conv2d(features, features, 3, 1, 1))
        self.conv_hr = nn.Conv2d(features, features, 3, 1, 1)
        self.conv_last = nn.Conv2d(features, 3, 3, 1, 1)

    def forward(self, x):
        height, width = x.shape[2:]
        extra = [-size % self.unshuffle for size in (width, height)]
        x = F.pad(x, (0, extra[0], 0, extra[1]), "reflect")
        first = self.conv_first(F.pixel_unshuffle(x, self.unshuffle))
        x = first + self.conv_body(self.body(first))
        for i in range(self.upsamples):
            x = F.interpolate(x, scale_factor=2, mode="nearest")
            x = F.leaky_relu(getattr(self, f"conv_up{i + 1}")(x), 0.2)
        x = self.conv_last(F.leaky_relu(self.conv_hr(x), 0.2))
        scale = 2**self.upsamples // self.unshuffle
        return x[:, :, : height * scale, : width * scale]


class Compact(nn.Module):
    def __init__(self, blocks, features, scale):
        super().__init__()
        self.scale = scale
        layers = [nn.Conv2d(3, features, 3, 1, 1), nn.PReLU(features)]
        for _ in range(blocks):
            layers += [nn.Conv2d(features, features, 3, 1, 1), nn.PReLU(features)]
        layers.append(nn.Conv2d(features, 3 * scale**2, 3, 1, 1))
        self.body = nn.ModuleList(layers)

    def forward(self, x):
        out = x
        for layer in self.body:
            out = layer(out)
        return F.pixel_shuffle(out, self.scale) + F.interpolate(
            x, scale_factor=self.scale, mode="nearest"
        )


NETWORKS = {
    "rrdbnet_x4": RRDBNet(2, 16, 8, 1, 2),
    "rrdbnet_x2": RRDBNet(1, 16, 8, 2, 2),
    "rrdbnet_x1": RRDBNet(1, 16, 8, 4, 2),
    "compact_x4": Compact(2, 16, 4),
}
ROWS, WIDTH = 21, 38


def image_bytes(name):
    """Smooth colours with noise, in bytes."""
    noise = torch.from_numpy(uniform(seed_of(name), 3 * ROWS * WIDTH)).reshape(3, ROWS, WIDTH)
    return ((noise + 1) * 127.5).floor().clamp(0, 255).to(torch.uint8)


def main():
    kept = {}
    image = image_bytes("upscalers.image").float()[None] / 255
    for name, net in NETWORKS.items():
        shapes = {key: list(tensor.shape) for key, tensor in net.state_dict().items()}
        net.load_state_dict(
            {key: torch.from_numpy(formula_tensor(name, key, s)) for key, s in shapes.items()}
        )
        out = net.eval()(image)
        kept[name] = out[0].permute(1, 2, 0).contiguous()
        print(name, tuple(out.shape), out.mean().item(), out.std().item())
    for mode in ("bilinear", "bicubic", "nearest-exact"):
        latent = formula_input("upscalers.latent", (1, 2, 5, 6), 3)
        kept[mode] = F.interpolate(latent, size=(8, 12), mode=mode)
    thinned = thin(kept, 96, 8192)
    save_file(
        {key: tensor.contiguous() for key, tensor in thinned.items()},
        "tests/fixtures/upscalers.safetensors",
    )


main()
