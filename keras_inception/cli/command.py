"""The classes of all commands: flags without a type in --help."""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand, TyperGroup


class _PlainFlags:
    """Typer shows a flag's type as <bool>, which reads as if a value was expected."""

    def get_params(self, ctx: Any) -> list[Any]:
        """The parameters, those that --help adds included."""
        params: list[Any] = super().get_params(ctx)  # type: ignore[misc]
        for param in params:
            if getattr(param, "is_flag", False):
                param.metavar = ""
        return params


class Command(_PlainFlags, TyperCommand):
    """A command."""


class Group(_PlainFlags, TyperGroup):
    """A command of several commands."""
