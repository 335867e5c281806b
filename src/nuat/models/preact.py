"""Pre-activation ResNets (arXiv:1603.05027) and Wide ResNets (arXiv:1605.07146)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import relu

from nuat.errors import InputError, check_positive_int


class PreActBlock(nn.Module):
    """conv(relu(bn(conv(relu(bn(x)))))) + shortcut, 3x3 convolutions.

    The shortcut is x, or a 1x1 convolution where the shape changes: of relu(bn(x)), or of x itself
    with `shortcut_from_x`. `nuat_layout` is the block of the Wide ResNet published with NuAT: the
    second convolution has the stride, the shortcut is taken from x, and all convolutions have
    biases.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        stride: int,
        nuat_layout: bool = False,
        shortcut_from_x: bool = False,
    ):
        super().__init__()
        first, second = (1, stride) if nuat_layout else (stride, 1)
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=first, padding=1, bias=nuat_layout)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, stride=second, padding=1, bias=nuat_layout)
        changes_shape = stride != 1 or inputs != outputs
        self.shortcut_after_relu = changes_shape and not (nuat_layout or shortcut_from_x)
        self.shortcut = (
            nn.Conv2d(inputs, outputs, 1, stride=stride, bias=nuat_layout)
            if changes_shape
            else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, inputs, H, W] to [B, outputs, H / stride, W / stride]."""
        activated = relu(self.bn1(x))
        branch: Tensor = self.conv2(relu(self.bn2(self.conv1(activated))))
        shortcut: Tensor = self.shortcut(activated if self.shortcut_after_relu else x)
        return branch + shortcut


class PreActResNet(nn.Module):
    """PreActResNet-18 for small images: 3x3 convolution, eight blocks, BatchNorm, ReLU, mean, head.

    Images [B, channels, H, W] in [0, 1], not normalized; logits [B, classes]. With the standard
    width 64 and 10 classes it has 11,172,170 parameters. By default it is the model of the
    published code of Rice et al. (arXiv:2002.11569) and of AWP (arXiv:2004.05884). With
    `shortcut_from_x` it is that of fast_adversarial (FBF, arXiv:2001.03994): where the shape
    changes, the shortcut takes x and not relu(bn(x)). The state dicts are the same, the functions
    are not. Source of the architecture: arXiv:1603.05027.
    """

    def __init__(
        self, classes: int, channels: int = 3, width: int = 64, shortcut_from_x: bool = False
    ):
        super().__init__()
        check_positive_int("width", width)
        self.conv1 = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        widths = [width * 2**stage for stage in range(4)]
        self.blocks = _stages([width, *widths], blocks_per_stage=2, shortcut_from_x=shortcut_from_x)
        self.bn = nn.BatchNorm2d(widths[-1])
        self.linear = nn.Linear(widths[-1], classes)

    def forward(self, x: Tensor) -> Tensor:
        x = relu(self.bn(self.blocks(self.conv1(x))))
        logits: Tensor = self.linear(x.mean((2, 3)))
        return logits


class WideResNet(nn.Module):
    """WRN-depth-width: 3x3 convolution (16), three stages of (depth - 4) / 6 blocks, as above.

    Images [B, channels, H, W] in [0, 1], not normalized; logits [B, classes]. The default is the
    model of the code published with TRADES (arXiv:1901.08573) and AWP (arXiv:2004.05884):
    46,160,474 parameters at 34-10 for 10 classes; the k x k convolutions to C channels start from
    N(0, 2 / (k k C)), the bias of the head from 0. `nuat_layout` is that of NuAT's code: see
    `PreActBlock`, the last BatchNorm has momentum 0.9, and all layers start as torch initializes
    them (46,172,810 parameters).
    """

    def __init__(
        self,
        classes: int,
        channels: int = 3,
        depth: int = 34,
        width: int = 10,
        nuat_layout: bool = False,
    ):
        super().__init__()
        check_positive_int("width", width)
        check_positive_int("depth", depth)
        if depth < 10 or (depth - 4) % 6:
            raise InputError(f"the depth of a Wide ResNet is 6 n + 4, such as 34, not {depth}")
        self.conv1 = nn.Conv2d(channels, 16, 3, padding=1, bias=nuat_layout)
        widths = [16, 16 * width, 32 * width, 64 * width]
        self.blocks = _stages(widths, (depth - 4) // 6, nuat_layout)
        self.bn = nn.BatchNorm2d(widths[-1], momentum=0.9 if nuat_layout else 0.1)
        self.linear = nn.Linear(widths[-1], classes)
        if not nuat_layout:
            _initialize_as_trades(self)

    def forward(self, x: Tensor) -> Tensor:
        x = relu(self.bn(self.blocks(self.conv1(x))))
        logits: Tensor = self.linear(x.mean((2, 3)))
        return logits


def _initialize_as_trades(model: nn.Module) -> None:
    """Draw convolutions from N(0, 2 / (k k C_out)) and set the bias of linear layers to 0."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)


def _stages(
    widths: list[int],
    blocks_per_stage: int,
    nuat_layout: bool = False,
    shortcut_from_x: bool = False,
) -> nn.Sequential:
    """Build stages from widths[i] to widths[i + 1]; all but the first one halve the image."""
    blocks = []
    for stage, outputs in enumerate(widths[1:]):
        for i in range(blocks_per_stage):
            inputs = widths[stage] if i == 0 else outputs
            stride = 2 if stage > 0 and i == 0 else 1
            blocks.append(PreActBlock(inputs, outputs, stride, nuat_layout, shortcut_from_x))
    return nn.Sequential(*blocks)
