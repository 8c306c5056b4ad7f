"""GoogLeNet and the Inception v1 family for Keras 3.

    import keras_inception
    model = keras_inception.GoogLeNet()

Source: Szegedy et al., "Going Deeper with Convolutions" (arXiv 1409.4842).
"""

from keras_inception.blocks import LocalResponseNormalization
from keras_inception.budget import Budget, fit_to_budget
from keras_inception.cost import network_cost, table_1
from keras_inception.googlenet import GoogLeNet
from keras_inception.imagenet import decode_predictions
from keras_inception.model_cost import model_cost
from keras_inception.network import (
    build_network,
    endpoints,
    feature_extractor,
    freeze_until,
    inference_model,
)
from keras_inception.preprocessing import model_preprocessing, preprocess_input
from keras_inception.recipe import RECIPES, Recipe
from keras_inception.spec import (
    AuxSpec,
    BatchNormSpec,
    BranchSpec,
    ConvSpec,
    LRNSpec,
    ModuleSpec,
    NetworkSpec,
    PoolSpec,
    StageSpec,
)
from keras_inception.variants import VARIANTS, variant_spec

__version__ = "0.1.0"

__all__ = [
    "RECIPES",
    "VARIANTS",
    "AuxSpec",
    "BatchNormSpec",
    "BranchSpec",
    "Budget",
    "ConvSpec",
    "GoogLeNet",
    "LRNSpec",
    "LocalResponseNormalization",
    "ModuleSpec",
    "NetworkSpec",
    "PoolSpec",
    "Recipe",
    "StageSpec",
    "build_network",
    "decode_predictions",
    "endpoints",
    "feature_extractor",
    "fit_to_budget",
    "freeze_until",
    "inference_model",
    "model_cost",
    "model_preprocessing",
    "network_cost",
    "preprocess_input",
    "table_1",
    "variant_spec",
]
