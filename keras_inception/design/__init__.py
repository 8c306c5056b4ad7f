"""Measured design: from a network's activations to a spec (section 4 and docs/correlation.md).

The line of a design: images -> activations at each module's input (`feature_extractor`) ->
statistics, clusters and dimensions (`correlation`) -> widths -> a spec within a budget. All modules
at once from one trained network, or layer by layer, as Arora et al. build theirs.
"""

from keras_inception.design.measurement import (
    DesignOptions,
    ModuleMeasurement,
    measure,
    module_inputs,
)
from keras_inception.design.procedure import Design, design, grow, truncated
from keras_inception.design.proposal import propose, proposed_module
from keras_inception.design.report import REPORT_FILE, width_rows, write_report

__all__ = [
    "REPORT_FILE",
    "Design",
    "DesignOptions",
    "ModuleMeasurement",
    "design",
    "grow",
    "measure",
    "module_inputs",
    "propose",
    "proposed_module",
    "truncated",
    "width_rows",
    "write_report",
]
