"""The cost as a function of the widths is that of the network which has them."""

import random
from dataclasses import replace

import pytest

from keras_inception.cost.budget import module_widths, with_module_widths
from keras_inception.cost.layers import network_cost
from keras_inception.cost.widths import CostOfWidths
from keras_inception.spec.network import ConvSpec, ModuleSpec, NetworkSpec, StageSpec
from keras_inception.spec.variants import VARIANTS

FORMS = [
    replace(form, input_shape=(224 if (form.input_shape[0] or 224) > 64 else 28,) * 2 + (channels,))
    for form in VARIANTS.values()
    for channels in (1, 3)
]


@pytest.mark.parametrize("form", FORMS, ids=lambda form: f"{form.name}-{form.input_shape[2]}")
@pytest.mark.parametrize("with_stem", [False, True])
def test_random_widths_cost_what_their_network_does(form: NetworkSpec, with_stem: bool) -> None:
    draw = random.Random(0)
    convolutions = [layer.name for layer in form.stem if isinstance(layer, ConvSpec)]
    names = [*module_widths(form), *(convolutions if with_stem else [])]
    cost_of = CostOfWidths(form, names)
    for _ in range(3):
        widths = {name: draw.randint(1, 300) for name in names}
        stem = tuple(
            replace(layer, filters=widths.get(layer.name, layer.filters))
            if isinstance(layer, ConvSpec)
            else layer
            for layer in form.stem
        )
        total = network_cost(
            with_module_widths(
                replace(form, stem=stem),
                {name: width for name, width in widths.items() if name not in convolutions},
            )
        ).total
        assert cost_of(widths) == (total.macs, total.params)


def test_a_network_by_hand() -> None:
    """On 8 x 8 x 3: a 1x1 branch of a filters beside pooled channels, 10 classes, and biases.

    64 * 3a multiply-adds, then 10(a + 3); parameters 3a + a and 10(a + 3) + 10.
    """
    module = ModuleSpec(name="3a", filters_1x1=4, spatial=(), filters_pool_proj=None)
    spec = replace(
        VARIANTS["nano"],
        input_shape=(8, 8, 3),
        classes=10,
        batch_norm=None,
        stem=(),
        stages=(StageSpec(name="3", downsample=None, modules=(module,)),),
    )
    cost_of = CostOfWidths(spec, ["3a_1x1"])
    assert cost_of({"3a_1x1": 4}) == (64 * 12 + 70, 12 + 4 + 80)
    assert cost_of({"3a_1x1": 7}) == (64 * 21 + 100, 21 + 7 + 110)
