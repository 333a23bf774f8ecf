"""Small networks, each with one thing that is hard to prune right."""

from __future__ import annotations

from typing import Callable, Dict, Tuple

import torch
from torch import nn
from torch.nn import functional as F

Entry = Tuple[Callable[[], nn.Module], Tuple[Tuple[int, ...], ...]]


class Fn(nn.Module):
    """Modules by name, and a forward as a function of them."""

    def __init__(self, forward: Callable[..., object], **modules: nn.Module) -> None:
        super().__init__()
        for name, module in modules.items():
            self.add_module(name, module)
        self._forward = forward

    def forward(self, *inputs: torch.Tensor) -> object:
        return self._forward(self, *inputs)


def conv(i: int, o: int, k: int = 3, **options: object) -> nn.Conv2d:
    options.setdefault("padding", k // 2)
    return nn.Conv2d(i, o, k, **options)


def head(width: int) -> nn.Linear:
    return nn.Linear(width, 5)


def pool(x: torch.Tensor) -> torch.Tensor:
    return x.mean((2, 3))


def plain() -> nn.Module:
    return Fn(
        lambda m, x: m.fc(pool(torch.relu(m.b2(m.c2(torch.relu(m.b1(m.c1(x)))))))),
        c1=conv(3, 8, bias=False), b1=nn.BatchNorm2d(8), c2=conv(8, 12), b2=nn.BatchNorm2d(12), fc=head(12),
    )  # fmt: skip


def residual() -> nn.Module:
    def forward(m: nn.Module, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(m.stem(x))
        x = torch.relu(x + m.b2(m.c2(torch.relu(m.c1(x)))))
        return m.fc(pool(torch.relu(x + m.c4(torch.relu(m.c3(x))))))

    return Fn(
        forward, stem=conv(3, 8), c1=conv(8, 6), c2=conv(6, 8, bias=False), b2=nn.BatchNorm2d(8),
        c3=conv(8, 10), c4=conv(10, 8), fc=head(8),
    )  # fmt: skip


def projection() -> nn.Module:
    def forward(m: nn.Module, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(m.stem(x))
        return m.fc(pool(torch.relu(m.short(x) + m.c2(torch.relu(m.c1(x))))))

    return Fn(
        forward, stem=conv(3, 8), c1=conv(8, 6, stride=2), c2=conv(6, 12),
        short=conv(8, 12, 1, stride=2), fc=head(12),
    )  # fmt: skip


def dense_concat() -> nn.Module:
    def forward(m: nn.Module, x: torch.Tensor) -> torch.Tensor:
        a = torch.relu(m.c1(x))
        b = torch.relu(m.c2(a))
        c = torch.relu(m.c3(torch.cat([a, b], 1)))
        return m.fc(pool(m.bn(torch.cat([a, b, c], 1))))

    return Fn(
        forward, c1=conv(3, 6), c2=conv(6, 5), c3=conv(11, 4), bn=nn.BatchNorm2d(15), fc=head(15)
    )


def concat_twice() -> nn.Module:
    def forward(m: nn.Module, x: torch.Tensor) -> torch.Tensor:
        a = torch.relu(m.c1(x))
        return m.fc(pool(torch.relu(m.c2(torch.cat([a, a], 1)))))

    return Fn(forward, c1=conv(3, 6), c2=conv(12, 8), fc=head(8))


def inverted_residual() -> nn.Module:
    def forward(m: nn.Module, x: torch.Tensor) -> torch.Tensor:
        x = m.stem(x)
        x = x + m.project(F.relu6(m.bn(m.dw(F.relu6(m.expand(x))))))
        return m.fc(pool(x))

    return Fn(
        forward, stem=conv(3, 6), expand=conv(6, 12, 1), dw=conv(12, 12, groups=12, bias=False),
        bn=nn.BatchNorm2d(12), project=conv(12, 6, 1), fc=head(6),
    )  # fmt: skip


def squeeze_excite() -> nn.Module:
    def forward(m: nn.Module, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(m.c1(x))
        gate = torch.sigmoid(m.f2(torch.relu(m.f1(F.adaptive_avg_pool2d(x, 1)))))
        return m.fc(pool(torch.relu(m.c2(x * gate))))

    return Fn(forward, c1=conv(3, 8), f1=conv(8, 4, 1), f2=conv(4, 8, 1), c2=conv(8, 6), fc=head(6))


def inception() -> nn.Module:
    def forward(m: nn.Module, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(m.stem(x))
        parts = [m.a(x), m.b2(torch.relu(m.b1(x))), m.c(F.max_pool2d(x, 3, 1, 1))]
        return m.fc(pool(torch.relu(torch.cat(parts, 1))))

    return Fn(
        forward, stem=conv(3, 8), a=conv(8, 4, 1), b1=conv(8, 3, 1), b2=conv(3, 6), c=conv(8, 5, 1), fc=head(15)
    )  # fmt: skip


def unet() -> nn.Module:
    def forward(m: nn.Module, x: torch.Tensor) -> torch.Tensor:
        a = torch.relu(m.d1(x))
        b = torch.relu(m.d2(F.max_pool2d(a, 2)))
        u = torch.relu(m.up(b))
        return m.out(torch.relu(m.mix(torch.cat([u, a], 1))))

    return Fn(
        forward, d1=conv(3, 6), d2=conv(6, 8), up=nn.ConvTranspose2d(8, 5, 2, stride=2), mix=conv(11, 7),
        out=conv(7, 4, 1),
    )  # fmt: skip


def grouped() -> nn.Module:
    return Fn(
        lambda m, x: m.fc(pool(torch.relu(m.c3(torch.relu(m.c2(torch.relu(m.c1(x)))))))),
        c1=conv(3, 8), c2=conv(8, 12, groups=4), c3=conv(12, 6, groups=2), fc=head(6),
    )  # fmt: skip


def shuffle() -> nn.Module:
    def forward(m: nn.Module, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(m.c1(x))
        n, c, h, w = x.shape
        x = x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)
        return m.fc(pool(torch.relu(m.c2(x))))

    return Fn(forward, c1=conv(3, 8, groups=1), c2=conv(8, 8, groups=2), fc=head(8))


def dilated() -> nn.Module:
    return Fn(
        lambda m, x: m.fc(pool(torch.relu(m.c2(torch.relu(m.c1(x)))))),
        c1=conv(3, 6, dilation=2, padding=2), c2=conv(6, 8, dilation=3, padding=3), fc=head(8),
    )  # fmt: skip


def flatten() -> nn.Module:
    return Fn(
        lambda m, x: m.f2(torch.relu(m.f1(F.max_pool2d(torch.relu(m.c1(x)), 2).flatten(1)))),
        c1=conv(3, 6), f1=nn.Linear(6 * 16, 10), f2=head(10),
    )  # fmt: skip


def two_outputs() -> nn.Module:
    def forward(m: nn.Module, x: torch.Tensor) -> Dict[str, torch.Tensor]:
        a = torch.relu(m.c1(x))
        b = torch.relu(m.c2(a))
        return {"map": b, "logits": m.fc(pool(torch.relu(m.c3(b))))}

    return Fn(forward, c1=conv(3, 6), c2=conv(6, 4), c3=conv(4, 8), fc=head(8))


def two_inputs() -> nn.Module:
    return Fn(
        lambda m, x, y: m.fc(pool(torch.relu(m.c2(torch.relu(m.a(x) + m.b(y)))))),
        a=conv(3, 8), b=conv(1, 8), c2=conv(8, 6), fc=head(6),
    )  # fmt: skip


def shared() -> nn.Module:
    return Fn(
        lambda m, x: m.fc(pool(torch.relu(m.c(torch.relu(m.c(torch.relu(m.stem(x)))))))),
        stem=conv(3, 6), c=conv(6, 6), fc=head(6),
    )  # fmt: skip


def prelu() -> nn.Module:
    return Fn(
        lambda m, x: m.fc(pool(m.act(m.c2(torch.relu(m.c1(x)))))),
        c1=conv(3, 6), c2=conv(6, 8), act=nn.PReLU(8), fc=head(8),
    )  # fmt: skip


def group_norm() -> nn.Module:
    return Fn(
        lambda m, x: m.fc(pool(torch.relu(m.c2(torch.relu(m.norm(m.c1(x))))))),
        c1=conv(3, 8), norm=nn.GroupNorm(2, 8), c2=conv(8, 6), fc=head(6),
    )  # fmt: skip


def multiplier() -> nn.Module:
    return Fn(
        lambda m, x: m.fc(pool(torch.relu(m.c2(torch.relu(m.dw(torch.relu(m.c1(x)))))))),
        c1=conv(3, 6), dw=conv(6, 12, groups=6), c2=conv(12, 8, 1), fc=head(8),
    )  # fmt: skip


def hard_view() -> nn.Module:
    return Fn(
        lambda m, x: m.fc(torch.relu(m.c2(torch.relu(m.c1(x)))).view(-1, 8 * 64)),
        c1=conv(3, 6), c2=conv(6, 8), fc=nn.Linear(512, 5),
    )  # fmt: skip


def chunk() -> nn.Module:
    def forward(m: nn.Module, x: torch.Tensor) -> torch.Tensor:
        a, b = torch.relu(m.c1(x)).chunk(2, 1)
        return m.fc(pool(torch.relu(m.c2(a) + m.c3(b))))

    return Fn(forward, c1=conv(3, 8), c2=conv(4, 6), c3=conv(4, 6), fc=head(6))


def channel_softmax() -> nn.Module:
    return Fn(
        lambda m, x: m.fc(pool(torch.relu(m.c2(torch.softmax(m.c1(x), 1))))),
        c1=conv(3, 8), c2=conv(8, 6), fc=head(6),
    )  # fmt: skip


def transposed_chain() -> nn.Module:
    return Fn(
        lambda m, x: m.out(torch.relu(m.bn(m.u2(torch.relu(m.u1(x)))))),
        u1=nn.ConvTranspose2d(3, 6, 3, stride=2, padding=1, output_padding=1),
        u2=nn.ConvTranspose2d(6, 4, 2, groups=2), bn=nn.BatchNorm2d(4), out=conv(4, 3, 1),
    )  # fmt: skip


def upsampled() -> nn.Module:
    def forward(m: nn.Module, x: torch.Tensor) -> torch.Tensor:
        x = F.interpolate(torch.relu(m.c1(x)), size=(16, 12), mode="bilinear", align_corners=False)
        x = F.interpolate(torch.relu(m.c2(x)), scale_factor=2, mode="nearest")
        return m.out(torch.relu(m.c3(x)))

    return Fn(forward, c1=conv(3, 6), c2=conv(6, 5), c3=conv(5, 4), out=conv(4, 3, 1))


def depthwise() -> nn.Module:
    return Fn(
        lambda m, x: m.fc(pool(torch.relu(m.c2(torch.relu(m.up(m.dw(torch.relu(m.c1(x))))))))),
        c1=conv(3, 8), dw=conv(8, 8, groups=8), up=nn.ConvTranspose2d(8, 8, 2, stride=2, groups=8),
        c2=conv(8, 6, 1), fc=head(6),
    )  # fmt: skip


def selected() -> nn.Module:
    def forward(m: nn.Module, x: torch.Tensor) -> torch.Tensor:
        return m.fc(torch.relu(m.c2(torch.relu(m.c1(x))))[:, :, 0, -1])

    return Fn(forward, c1=conv(3, 8), c2=conv(8, 6), fc=head(6))


def cropped() -> nn.Module:
    return Fn(
        lambda m, x: m.fc(pool(torch.relu(m.c2(F.pad(torch.relu(m.c1(x))[:, :, 1:-1, ::2], (1, 1, 1, 1)))))),
        c1=conv(3, 8), c2=conv(8, 6), fc=head(6),
    )  # fmt: skip


def plain_norms() -> nn.Module:
    """Norms without weights, of one width: their ones and zeros are shared constants in the graph."""
    return Fn(
        lambda m, x: m.fc(pool(torch.relu(m.b2(m.c2(torch.relu(m.b1(m.c1(x)))))))),
        c1=conv(3, 8), b1=nn.BatchNorm2d(8, affine=False), c2=conv(8, 8), b2=nn.BatchNorm2d(8, affine=False),
        fc=head(8),
    )  # fmt: skip


def constant_gate() -> nn.Module:
    def forward(m: nn.Module, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(m.c1(x))
        x = m.c2(x * torch.full_like(x, 0.5))
        return m.fc(pool(torch.relu(x + torch.ones_like(x))))

    return Fn(forward, c1=conv(3, 8), c2=conv(8, 6), fc=head(6))


def spatial_attention() -> nn.Module:
    def forward(m: nn.Module, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(m.c1(x))
        return m.fc(pool(torch.relu(m.c2(x * torch.sigmoid(m.gate(x))))))

    return Fn(forward, c1=conv(3, 8), gate=conv(8, 1), c2=conv(8, 6), fc=head(6))


def tokens() -> nn.Module:
    def forward(m: nn.Module, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(m.c1(x)).flatten(2).transpose(1, 2)
        return m.fc(m.b(torch.relu(m.a(x))).mean(1))

    return Fn(forward, c1=conv(3, 8), a=nn.Linear(8, 12), b=nn.Linear(12, 6), fc=head(6))


def pixel_shuffle() -> nn.Module:
    return Fn(
        lambda m, x: m.out(F.pixel_shuffle(m.c2(torch.relu(m.c1(x))), 2)),
        c1=conv(3, 8), c2=conv(8, 12), out=conv(3, 3),
    )  # fmt: skip


def adaptive() -> nn.Module:
    return Fn(
        lambda m, x: m.f2(F.hardswish(m.b(m.f1(F.adaptive_avg_pool2d(F.silu(m.c1(x)), 2).flatten(1))))),
        c1=conv(3, 6), f1=nn.Linear(24, 10), b=nn.BatchNorm1d(10), f2=head(10),
    )  # fmt: skip


def instance_norm() -> nn.Module:
    return Fn(
        lambda m, x: m.fc(pool(torch.relu(m.c2(torch.relu(m.norm(m.c1(x))))))),
        c1=conv(3, 8), norm=nn.InstanceNorm2d(8, affine=True), c2=conv(8, 6), fc=head(6),
    )  # fmt: skip


def layer_norm() -> nn.Module:
    return Fn(
        lambda m, x: m.fc(torch.relu(m.f2(m.norm(m.f1(pool(torch.relu(m.c1(x)))))))),
        c1=conv(3, 8), f1=nn.Linear(8, 10), norm=nn.LayerNorm(10), f2=nn.Linear(10, 7), fc=head(7),
    )  # fmt: skip


def padded_shortcut() -> nn.Module:
    def forward(m: nn.Module, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(m.c1(x))
        return m.fc(pool(torch.relu(m.c2(x)) + F.pad(x, (0, 0, 0, 0, 0, 2))))

    return Fn(forward, c1=conv(3, 8), c2=conv(8, 10), fc=head(10))


def split_concat() -> nn.Module:
    def forward(m: nn.Module, x: torch.Tensor) -> torch.Tensor:
        a, b = torch.cat([torch.relu(m.a(x)), torch.relu(m.b(x))], 1).split([6, 4], 1)
        return m.fc(pool(torch.relu(m.c(a) + m.d(b))))

    return Fn(forward, a=conv(3, 6), b=conv(3, 4), c=conv(6, 5), d=conv(4, 5), fc=head(5))


def deep() -> nn.Module:
    """Thirty layers: what is wrong with the first must be visible behind the last."""
    layers = {f"c{place}": conv(6, 6) for place in range(1, 30)}

    def forward(m: nn.Module, x: torch.Tensor) -> torch.Tensor:
        x = torch.tanh(m.c0(x))
        for place in range(1, 30):
            x = torch.tanh(getattr(m, f"c{place}")(x))
        return m.fc(pool(x))

    return Fn(forward, c0=conv(3, 6), **layers, fc=head(6))


def feature_pyramid() -> nn.Module:
    def forward(m: nn.Module, x: torch.Tensor) -> Tuple[torch.Tensor, ...]:
        a = torch.relu(m.d1(x))
        b = torch.relu(m.d2(a))
        top = m.l2(b)
        low = m.l1(a) + F.interpolate(top, scale_factor=2.0, mode="nearest")
        return m.p1(low), m.p2(top)

    return Fn(
        forward, d1=conv(3, 6), d2=conv(6, 8, stride=2), l1=conv(6, 7, 1), l2=conv(8, 7, 1), p1=conv(7, 4),
        p2=conv(7, 4),
    )  # fmt: skip


def attention() -> nn.Module:
    """One head over the places of a feature map; the widths are read off the tensors."""

    def forward(m: nn.Module, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(m.c1(x))
        places = x.flatten(2).transpose(1, 2)
        score = m.q(places) @ m.k(places).transpose(1, 2)
        mixed = m.o(torch.softmax(score * 0.3, -1) @ m.v(places))
        return m.fc(pool(torch.relu(m.c2(x + mixed.transpose(1, 2).reshape(x.shape)))))

    return Fn(
        forward, c1=conv(3, 8, stride=2), q=nn.Linear(8, 6), k=nn.Linear(8, 6), v=nn.Linear(8, 5), o=nn.Linear(5, 8),
        c2=conv(8, 6), fc=head(6),
    )  # fmt: skip


def densenet() -> nn.Module:
    """Batch norm, ReLU, convolution; each layer reads all before it; a transition halves the width."""

    def forward(m: nn.Module, x: torch.Tensor) -> torch.Tensor:
        x = m.stem(x)
        for place in (1, 2):
            bottle = getattr(m, f"c{place}a")(torch.relu(getattr(m, f"n{place}a")(x)))
            grown = getattr(m, f"c{place}b")(torch.relu(getattr(m, f"n{place}b")(bottle)))
            x = torch.cat([x, grown], 1)
        x = F.avg_pool2d(m.t(torch.relu(m.nt(x))), 2)
        return m.fc(pool(torch.relu(m.last(x))))

    return Fn(
        forward, stem=conv(3, 6, bias=False), n1a=nn.BatchNorm2d(6), c1a=conv(6, 8, 1, bias=False),
        n1b=nn.BatchNorm2d(8), c1b=conv(8, 4, bias=False), n2a=nn.BatchNorm2d(10), c2a=conv(10, 8, 1, bias=False),
        n2b=nn.BatchNorm2d(8), c2b=conv(8, 4, bias=False), nt=nn.BatchNorm2d(14), t=conv(14, 7, 1, bias=False),
        last=nn.BatchNorm2d(7), fc=head(7),
    )  # fmt: skip


def shuffle_unit() -> nn.Module:
    """ShuffleNetV2: a unit that halves the map, then a basic one."""

    def mixed(x: torch.Tensor) -> torch.Tensor:
        n, c, h, w = x.shape
        return x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)

    def forward(m: nn.Module, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(m.stem(x))
        left = torch.relu(m.l2(m.l1(x)))
        x = mixed(torch.cat([left, torch.relu(m.r3(m.r2(torch.relu(m.r1(x)))))], 1))
        left, right = x.chunk(2, 1)
        x = mixed(torch.cat([left, torch.relu(m.b3(m.b2(torch.relu(m.b1(right)))))], 1))
        return m.fc(pool(torch.relu(m.last(x))))

    return Fn(
        forward, stem=conv(3, 6), l1=conv(6, 6, stride=2, groups=6), l2=conv(6, 6, 1), r1=conv(6, 6, 1),
        r2=conv(6, 6, stride=2, groups=6), r3=conv(6, 6, 1), b1=conv(6, 6, 1), b2=conv(6, 6, groups=6),
        b3=conv(6, 6, 1), last=conv(12, 8, 1), fc=head(8),
    )  # fmt: skip


def resnext() -> nn.Module:
    def forward(m: nn.Module, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(m.stem(x))
        inner = torch.relu(m.b2(m.c2(torch.relu(m.b1(m.c1(x))))))
        return m.fc(pool(torch.relu(m.short(x) + m.c3(inner))))

    return Fn(
        forward, stem=conv(3, 6), c1=conv(6, 8, 1, bias=False), b1=nn.BatchNorm2d(8),
        c2=conv(8, 8, groups=4, bias=False), b2=nn.BatchNorm2d(8), c3=conv(8, 12, 1), short=conv(6, 12, 1), fc=head(12),
    )  # fmt: skip


def ghost() -> nn.Module:
    """Half of the channels are made by a depthwise layer from the other half."""

    def forward(m: nn.Module, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(m.stem(x))
        return m.fc(pool(torch.relu(m.c2(torch.cat([x, torch.relu(m.cheap(x))], 1)))))

    return Fn(forward, stem=conv(3, 6), cheap=conv(6, 6, groups=6), c2=conv(12, 8, 1), fc=head(8))


def aspp() -> nn.Module:
    """Parallel dilated branches and a pooled one that is spread out again."""

    def forward(m: nn.Module, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(m.stem(x))
        spread = F.interpolate(m.p(F.adaptive_avg_pool2d(x, 1)), size=(8, 8), mode="nearest")
        return m.out(torch.relu(m.mix(torch.cat([m.a(x), m.b(x), m.c(x), spread], 1))))

    return Fn(
        forward, stem=conv(3, 6), a=conv(6, 4, 1), b=conv(6, 5, padding=2, dilation=2),
        c=conv(6, 4, padding=3, dilation=3), p=conv(6, 3, 1), mix=conv(16, 6, 1), out=conv(6, 4, 1),
    )  # fmt: skip


def deconv_decoder() -> nn.Module:
    """Decode with transposed convolutions, adding what the encoder saw."""

    def forward(m: nn.Module, x: torch.Tensor) -> torch.Tensor:
        a = torch.relu(m.e1(x))
        b = torch.relu(m.e2(a))
        u = torch.relu(m.n1(m.u1(b)) + a)
        return m.u2(u)

    return Fn(
        forward, e1=conv(3, 6, stride=2), e2=conv(6, 8, stride=2),
        u1=nn.ConvTranspose2d(8, 6, 4, stride=2, padding=1, bias=False), n1=nn.BatchNorm2d(6),
        u2=nn.ConvTranspose2d(6, 3, 4, stride=2, padding=1),
    )  # fmt: skip


def mbconv() -> nn.Module:
    """EfficientNet's block: expansion, depthwise, squeeze and excite, SiLU, linear bottleneck, shortcut."""

    def forward(m: nn.Module, x: torch.Tensor) -> torch.Tensor:
        x = F.silu(m.stem(x))
        y = F.silu(m.n2(m.dw(F.silu(m.n1(m.expand(x))))))
        y = y * torch.sigmoid(m.s2(F.silu(m.s1(y.mean((2, 3), keepdim=True)))))
        return m.fc(pool(F.silu(m.last(x + m.n3(m.project(y))))))

    return Fn(
        forward, stem=conv(3, 6), expand=conv(6, 12, 1, bias=False), n1=nn.BatchNorm2d(12),
        dw=conv(12, 12, 5, groups=12, bias=False), n2=nn.BatchNorm2d(12), s1=conv(12, 3, 1), s2=conv(3, 12, 1),
        project=conv(12, 6, 1, bias=False), n3=nn.BatchNorm2d(6), last=conv(6, 8, 1), fc=head(8),
    )  # fmt: skip


def convnext() -> nn.Module:
    """Depthwise 7x7, layer norm and linear layers over the last axis, GELU, a scale of its own, shortcut."""

    def forward(m: nn.Module, x: torch.Tensor) -> torch.Tensor:
        x = m.stem(x)
        y = m.norm(m.dw(x).permute(0, 2, 3, 1))
        y = m.scale.weight * m.f2(F.gelu(m.f1(y)))
        return m.fc(pool(x + y.permute(0, 3, 1, 2)))

    scale = nn.Module()
    scale.weight = nn.Parameter(torch.full((6,), 0.5))
    return Fn(
        forward, stem=conv(3, 6, 2, stride=2, padding=0), dw=conv(6, 6, 7, groups=6), norm=nn.LayerNorm(6),
        f1=nn.Linear(6, 12), f2=nn.Linear(12, 6), scale=scale, fc=head(6),
    )  # fmt: skip


def one_dimensional() -> nn.Module:
    return Fn(
        lambda m, x: m.fc(torch.relu(m.c2(F.max_pool1d(torch.relu(m.b1(m.c1(x))), 2))).mean(2)),
        c1=nn.Conv1d(2, 6, 5, padding=2), b1=nn.BatchNorm1d(6), c2=nn.Conv1d(6, 8, 3, stride=2), fc=head(8),
    )  # fmt: skip


def siamese() -> nn.Module:
    """Two inputs through the same layers; the distance decides."""

    def forward(m: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        one, other = (pool(torch.relu(m.c2(torch.relu(m.c1(z))))) for z in (x, y))
        return m.fc((one - other).abs())

    return Fn(forward, c1=conv(3, 6), c2=conv(6, 8), fc=head(8))


def rep_vgg() -> nn.Module:
    """Branches of 3x3, 1x1 and nothing but a batch norm are added."""

    def forward(m: nn.Module, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(m.n1(m.c1(x)) + m.n2(m.c2(x)))
        return m.fc(pool(torch.relu(m.n3(m.c3(x)) + m.n4(m.c4(x)) + m.n5(x))))

    return Fn(
        forward, c1=conv(3, 8, bias=False), n1=nn.BatchNorm2d(8), c2=conv(3, 8, 1, bias=False),
        n2=nn.BatchNorm2d(8), c3=conv(8, 8, bias=False), n3=nn.BatchNorm2d(8), c4=conv(8, 8, 1, bias=False),
        n4=nn.BatchNorm2d(8), n5=nn.BatchNorm2d(8), fc=head(8),
    )  # fmt: skip


def hourglass() -> nn.Module:
    """Down and up again with a shortcut on every level, and an output between two stacks."""

    def forward(m: nn.Module, x: torch.Tensor) -> Tuple[torch.Tensor, ...]:
        x = torch.relu(m.stem(x))
        inner = torch.relu(m.d(F.max_pool2d(x, 2)))
        inner = torch.relu(m.mid(F.max_pool2d(inner, 2))) + F.avg_pool2d(m.skip2(inner), 2)
        y = m.skip1(x) + F.interpolate(m.u(inner), scale_factor=4.0, mode="nearest")
        early = m.out1(y)
        return early, m.out2(torch.relu(m.join(y) + m.back(early)))

    return Fn(
        forward, stem=conv(3, 6), d=conv(6, 7), mid=conv(7, 7), skip2=conv(7, 7, 1), skip1=conv(6, 8, 1),
        u=conv(7, 8, 1), out1=conv(8, 3, 1), back=conv(3, 6, 1),
        join=conv(8, 6, 1), out2=conv(6, 3, 1),
    )  # fmt: skip


IMAGE = (1, 3, 8, 8)
ZOO: Dict[str, Entry] = {
    builder.__name__: (builder, (IMAGE,))
    for builder in (
        plain, residual, projection, dense_concat, concat_twice, inverted_residual, squeeze_excite, inception,
        unet, grouped, shuffle, dilated, flatten, two_outputs, shared, prelu, group_norm, multiplier, hard_view,
        chunk, channel_softmax, transposed_chain, upsampled, depthwise, selected, cropped, plain_norms, constant_gate,
        spatial_attention, tokens, pixel_shuffle, adaptive, instance_norm, layer_norm, padded_shortcut, split_concat,
        deep, feature_pyramid, attention, densenet, shuffle_unit, resnext, ghost, aspp, deconv_decoder, mbconv,
        convnext, rep_vgg, hourglass,
    )
}  # fmt: skip
ZOO["two_inputs"] = (two_inputs, (IMAGE, (1, 1, 8, 8)))
ZOO["siamese"] = (siamese, (IMAGE, IMAGE))
ZOO["one_dimensional"] = (one_dimensional, ((1, 2, 16),))

#: Networks that multiply activations with each other: such products belong to no layer, and no spec counts them.
PRODUCTS = {"attention"}
#: Groups that must be found prunable (or must not): a lost group is a loss for the user, a wrong one a bug.
PRUNABLE = {
    "plain": {"c1": True, "c2": True, "fc": False},
    "residual": {"stem": True, "c1": True, "c3": True},
    "projection": {"stem": True, "c1": True, "short": True},
    "dense_concat": {"c1": True, "c2": True, "c3": True},
    "concat_twice": {"c1": True, "c2": True},
    "inverted_residual": {"stem": True, "expand": True},
    "squeeze_excite": {"c1": True, "f1": True, "c2": True},
    "inception": {"stem": True, "a": True, "b1": True, "b2": True, "c": True},
    "unet": {"d1": True, "d2": True, "up": True, "mix": True, "out": False},
    "grouped": {"c1": True, "c2": True, "c3": True},
    "dilated": {"c1": True, "c2": True},
    "flatten": {"c1": True, "f1": True},
    "two_outputs": {"c1": True, "c2": False, "c3": True},
    "two_inputs": {"a": True, "c2": True},
    "shared": {"stem": True},
    "prelu": {"c1": True, "c2": True},
    "group_norm": {"c1": False, "c2": True},
    "multiplier": {"c1": False, "dw": True, "c2": True},
    "hard_view": {"c1": True, "c2": False},
    "channel_softmax": {"c1": False, "c2": True},
    "transposed_chain": {"u1": True, "u2": True},
    "chunk": {"c1": False, "c2": True},
    "shuffle": {"c2": True},
    "upsampled": {"c1": True, "c2": True, "c3": True},
    "depthwise": {"c1": True, "c2": True},
    "selected": {"c1": True, "c2": True},
    "cropped": {"c1": True, "c2": True},
    "plain_norms": {"c1": True, "c2": True},
    "constant_gate": {"c1": True, "c2": True},
    "spatial_attention": {"c2": True},
    "tokens": {"c1": True, "a": True, "b": True},
    "pixel_shuffle": {"c1": True, "c2": False},
    "adaptive": {"c1": True, "f1": True},
    "instance_norm": {"c1": True, "c2": True},
    "layer_norm": {"c1": True, "f1": False, "f2": True},
    "padded_shortcut": {"c1": False},
    "split_concat": {"a": False, "c": True},
    "deep": {f"c{place}": True for place in range(30)},
    "feature_pyramid": {"d1": True, "d2": True, "l2": True, "p1": False, "p2": False},
    "attention": {"c1": True, "q": False, "c2": True},
    "densenet": {"stem": True, "c1a": True, "c1b": True, "c2a": True, "c2b": True, "t": True},
    "shuffle_unit": {"stem": True, "l2": False, "r1": True, "b1": True, "last": True},
    "resnext": {"stem": True, "c1": True, "c2": True, "short": True},
    "ghost": {"stem": True, "c2": True},
    "aspp": {"stem": True, "a": True, "b": True, "c": True, "p": True, "mix": True},
    "deconv_decoder": {"e1": True, "e2": True},
    "mbconv": {"stem": True, "expand": True, "s1": True, "last": True},
    "convnext": {"stem": False, "f1": True},
    "one_dimensional": {"c1": True, "c2": True},
    "siamese": {"c1": True, "c2": True},
    "rep_vgg": {"c1": True, "fc": False},
    "hourglass": {"stem": True, "d": True, "mid": True, "skip1": True, "out1": False, "join": True},
}


def build(name: str) -> Tuple[nn.Module, Tuple[torch.Tensor, ...]]:
    """Return a zoo network in eval mode with lively batch norms, and an example input: every time the same."""
    builder, shapes = ZOO[name]
    generator = torch.Generator().manual_seed(7)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)  # noqa: TID251  # of the fork
        model = builder().eval()
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            module.running_mean.normal_(0.0, 0.2, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
    return model, tuple(torch.randn(shape, generator=generator) for shape in shapes)
