"""Write real files of torchvision's googlenet, ONNX exports, and torch's outputs.

Runs in a separate process, because Triton, which torchvision loads, crashes with TensorFlow:

    pip install torch==2.14.1 torchvision==0.29.1 safetensors
    python tests/writers/torch_network.py FOLDER

Writes FOLDER/zip.pth and FOLDER/legacy.pth (both formats of torch.save), plain.safetensors (no
auxiliary classifiers, no `transform_input`, 37 classes), module.pth (a pickled network) and
wrapped.pth; bvlc.onnx and bvlc_floor.onnx, exports of BVLC's network with pools rounded up and
down; and FOLDER/endpoints.npz: the `pixels` N x 224 x 224 x 3 in [0, 255], and every module's
output on them, channels last, after the ReLU where one follows.
"""

import sys
import warnings
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
import torchvision
from torch import nn
from torchvision.models.googlenet import BasicConv2d, Inception

BVLC = {  # Table 1
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}


def conv(channels: int, filters: int, kernel: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, filters, kernel, stride, kernel // 2), nn.ReLU())


class Module(nn.Module):
    def __init__(self, channels: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        one, reduce3, three, reduce5, five, projection = widths
        self.branches = nn.ModuleList(
            [
                conv(channels, one, 1),
                nn.Sequential(conv(channels, reduce3, 1), conv(reduce3, three, 3)),
                nn.Sequential(conv(channels, reduce5, 1), conv(reduce5, five, 5)),
                nn.Sequential(nn.MaxPool2d(3, 1, 1), conv(channels, projection, 1)),
            ]
        )
        self.filters = one + three + five + projection

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([branch(x) for branch in self.branches], 1)


def bvlc(ceil_mode: bool) -> nn.Sequential:
    """models/bvlc_googlenet in plain torch, with layers named by position."""

    def pool() -> nn.MaxPool2d:
        return nn.MaxPool2d(3, 2, ceil_mode=ceil_mode)

    def lrn() -> nn.LocalResponseNorm:
        return nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=1.0)

    layers: list[nn.Module] = [conv(3, 64, 7, 2), pool(), lrn(), conv(64, 64, 1)]
    layers += [conv(64, 192, 3), lrn(), pool()]
    channels = 192
    for name, widths in BVLC.items():
        layers.append(Module(channels, widths))
        channels = layers[-1].filters
        if name in ("3b", "4e"):
            layers.append(pool())
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.4), nn.Linear(1024, 1000)]
    return nn.Sequential(*layers, *head)


def randomize(network: nn.Module) -> nn.Module:
    """Set weights that preserve the scale of activations, and statistics other than 0 and 1."""
    generator = torch.Generator().manual_seed(0)
    for name, value in network.state_dict().items():
        if name.endswith(("running_var", "bn.weight")):
            value.uniform_(0.5, 1.5, generator=generator)
        elif value.ndim > 1:
            value.normal_(0, float(np.sqrt(2 / value[0].numel())), generator=generator)
        elif not name.endswith("num_batches_tracked"):
            value.uniform_(-0.2, 0.4, generator=generator)
    return network.eval()


def run(network: nn.Module, inputs: torch.Tensor) -> dict[str, np.ndarray]:
    """Return the outputs of the layers that have a counterpart, channels last."""
    seen: dict[str, np.ndarray] = {}

    def record(name: str, module: nn.Module):
        def hook(module, arguments, output):
            if torch.is_tensor(output):
                # torchvision's ReLU is not a separate module
                relu = isinstance(module, BasicConv2d)
                value = (output.relu() if relu else output).numpy().copy()
                seen[name] = value.transpose(0, 2, 3, 1) if value.ndim == 4 else value

        return module.register_forward_hook(hook)

    kinds = (BasicConv2d, Inception, nn.MaxPool2d, nn.Linear)
    modules = [pair for pair in network.named_modules() if isinstance(pair[1], kinds)]
    hooks = [record(name, module) for name, module in modules]
    # Only the outermost module: torchvision's network checks its mode before it runs the heads.
    network.training = True
    with torch.no_grad():
        network(inputs)
    network.training = False
    for hook in hooks:
        hook.remove()
    return seen


def export(folder: Path, name: str, ceil_mode: bool, inputs: torch.Tensor) -> np.ndarray:
    network = randomize(bvlc(ceil_mode))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter, about its successor
        torch.onnx.export(network, (inputs,), folder / name, dynamo=False, opset_version=17)
    with torch.no_grad():
        return network(inputs).numpy()


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 224, 224, 3)).astype(np.float32)
    mean, deviation = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    normalize = torchvision.transforms.Normalize(mean, deviation)
    inputs = normalize(torch.from_numpy(pixels.transpose(0, 3, 1, 2) / 255))
    values = {"pixels": pixels}

    network = randomize(
        torchvision.models.googlenet(init_weights=False, transform_input=True, aux_logits=True)
    )
    torch.save(network.state_dict(), folder / "zip.pth")
    torch.save(network.state_dict(), folder / "legacy.pth", _use_new_zipfile_serialization=False)
    values |= {f"full/{name}": value for name, value in run(network, inputs).items()}

    plain = randomize(
        torchvision.models.googlenet(init_weights=False, aux_logits=False, num_classes=37)
    )
    safetensors.torch.save_file(plain.state_dict(), folder / "plain.safetensors")
    torch.save(plain, folder / "module.pth")
    torch.save({"epoch": 3, "model": plain.state_dict()}, folder / "wrapped.pth")
    values["plain"] = run(plain, inputs)["fc"]

    bgr = pixels[..., ::-1] - np.array([104, 117, 123], np.float32)
    raw = torch.from_numpy(bgr.transpose(0, 3, 1, 2).copy())
    values["bvlc"] = export(folder, "bvlc.onnx", True, raw)
    values["bvlc_floor"] = export(folder, "bvlc_floor.onnx", False, raw)
    categories = torchvision.models.GoogLeNet_Weights.IMAGENET1K_V1.meta["categories"]
    values["categories"] = np.array(categories)
    np.savez(folder / "endpoints.npz", **{name.replace("/", "|"): v for name, v in values.items()})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
