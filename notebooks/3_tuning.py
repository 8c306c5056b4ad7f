# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Tune a network for a budget
#
# Section 4 of the paper says that networks of this form are fast, but "this requires careful manual
# design at this point". This notebook replaces the manual design with a search. Every candidate is
# projected onto the budget before it is built.

# %%
import os
import warnings

warnings.filterwarnings("ignore", "IProgress not found")  # the notebook uses no progress bar
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"  # hide TensorFlow's log messages

# %%
import logging
import tempfile
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt

from keras_inception import RECIPES, VARIANTS, Budget, network_cost, open_data
from tuning import SearchPlan, Space, best_first, read_trials, search, write_report

logging.getLogger("tensorflow").setLevel(logging.ERROR)

# %% [markdown]
# ## The space
#
# The search starts from `tiny` and allows half of its multiply-adds. Hyperparameters are
# ratios of widths, shares of branches (0 removes one) and numbers of modules. Where all ratios and
# shares are 1, the point is the network itself, scaled to the budget.

# %%
budget = Budget(macs=network_cost(VARIANTS["tiny"]).total.macs // 2)
space = Space(base=VARIANTS["tiny"], budget=budget, width_divisor=4)
print(f"at most {budget.macs:,} multiply-adds")
for dimension in space.dimensions:
    print(f"{dimension.name:24} {dimension.low:.2f} to {dimension.high:.2f}")

neutral = space.spec({dimension.name: dimension.neutral for dimension in space.dimensions})
print(f"the neutral point: {network_cost(neutral).total.macs:,} multiply-adds")

# %% [markdown]
# ## The search
#
# Five trials on a tenth of the sample with two epochs each show how a search works; they are far
# too few to choose a network. Without `finalists=0` the best five would then be trained fully, with
# two seeds each. The same call with the same folder resumes a stopped search. The same in a shell:
# `keras-inception tune --variant tiny --budget-macs 3983720 --trials 5`, with `--workers 2` for two
# processes.

# %%
folder = Path(tempfile.mkdtemp()) / "search"
plan = SearchPlan(
    space=space,
    recipe=replace(RECIPES["quick"], epochs=2),
    max_trials=5,
    data_fraction=0.1,
    finalists=0,
)
search(plan, open_data("sample"), folder)

trials = read_trials(folder)
print(f"{'trial':>5} {'accuracy':>9} {'multiply-adds':>14} {'parameters':>11}")
for trial in best_first(trials):
    print(f"{trial.number:>5} {trial.accuracy:>9.1%} {trial.macs:>14,} {trial.params:>11,}")
print("all within the budget:", all(trial.macs <= budget.macs for trial in trials))

# %% [markdown]
# ## The report
#
# `report.html` works offline and shows the network of a point on hover. Its plots are in the same
# folder, among them the stages of the best networks and the progress of the search.

# %%
page = write_report(folder)
print(f"{page.name}: {page.stat().st_size:,} bytes")
figure, axes = plt.subplots(2, 1, figsize=(11, 8))
for axis, name in zip(axes, ("stages.png", "progress.png"), strict=True):
    axis.imshow(plt.imread(folder / name))
    axis.axis("off")
figure.tight_layout()
plt.show()

# %% [markdown]
# The best network is an ordinary spec: `keras-inception train --spec best_spec.json`.

# %%
print((folder / "best_spec.json").read_text()[:300], "...")
