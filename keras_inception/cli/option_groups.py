"""Commands with many options: each group of options is a dataclass, and a panel of --help."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from dataclasses import fields
from typing import Annotated, Any, get_args, get_type_hints


def option_groups(command: Callable[..., None]) -> Callable[..., None]:
    """Make a function of dataclasses into the function of options that Typer reads.

    Args:
        command: each of its parameters is a dataclass, whose fields are options as in a command of
            Typer's, with defaults. The docstring of the dataclass is the title of its panel.
    """
    groups = {name: hint for name, hint in get_type_hints(command).items() if name != "return"}

    def run(**options: Any) -> None:
        command(
            **{
                name: group(**{item.name: options[item.name] for item in fields(group)})
                for name, group in groups.items()
            }
        )

    parameters = [item for group in groups.values() for item in _parameters(group)]
    run.__doc__ = command.__doc__
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {item.name: item.annotation for item in parameters}
    return run


def _parameters(group: type) -> list[inspect.Parameter]:
    hints = get_type_hints(group, include_extras=True)
    title = str(group.__doc__).rstrip(".")
    return [
        inspect.Parameter(
            item.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=item.default,
            annotation=_in_panel(hints[item.name], title),
        )
        for item in fields(group)
    ]


def _in_panel(annotation: Any, title: str) -> Any:
    kind, option = get_args(annotation)
    option = copy.copy(option)  # it may be another command's too
    option.rich_help_panel = title
    return Annotated[kind, option]
