"""The style of the plots of accuracy against a cost."""

from matplotlib.axes import Axes
from matplotlib.ticker import EngFormatter, LogLocator, NullLocator


def cost_axis(axes: Axes, label: str) -> None:
    """Format the x-axis for a cost: logarithmic, with plain numbers ("2M") as tick labels."""
    axes.set(xscale="log", xlabel=label)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.grid(alpha=0.3)
