"""Steps of torchvision's googlenet, channels last, to compare with. Needs torch and torchvision."""

from __future__ import annotations

from collections.abc import Callable

import torch  # importing it after TensorFlow causes a segmentation fault
import torchvision


def googlenet_steps(
    batch: int,
    pixels: int = 224,
    *,
    bfloat16: bool = True,
    training: bool = True,
    aux: bool = False,
    compiler: str | None = None,
) -> Callable[[int], None]:
    """Return a function that takes a number of steps on one random batch, and waits for the last.

    Args:
        batch: images a step.
        pixels: their height and width.
        bfloat16: run under autocast; otherwise in float32.
        training: take steps of SGD with momentum; otherwise compute the scores.
        aux: train the auxiliary classifiers too.
        compiler: backend of `torch.compile`; None: eager.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.backends.cudnn.benchmark = True
    model = torchvision.models.googlenet(weights=None, aux_logits=aux, init_weights=False)
    model = model.to(device, memory_format=torch.channels_last).train(training)
    call = torch.compile(model, backend=compiler, dynamic=False) if compiler else model
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
    images = torch.rand(batch, 3, pixels, pixels, device=device) * 2 - 1
    images = images.contiguous(memory_format=torch.channels_last)
    labels = torch.randint(1000, (batch,), device=device)

    def loss() -> torch.Tensor:
        outputs = call(images)
        main, *others = outputs if aux else (outputs,)
        cross_entropy = torch.nn.functional.cross_entropy
        return cross_entropy(main, labels) + 0.3 * sum(cross_entropy(o, labels) for o in others)

    def steps(count: int) -> None:
        for _ in range(count):
            with (
                torch.autocast(device, torch.bfloat16, enabled=bfloat16),
                torch.set_grad_enabled(training),
            ):
                result = loss() if training else call(images)
            if training:
                optimizer.zero_grad()
                result.backward()
                optimizer.step()
        result.sum().item()  # waits for the device

    return steps
