"""Registries: what the names that people type stand for."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from nuat.errors import InputError, unknown_name

T = TypeVar("T")


class Registry(dict[str, T]):
    """A mapping from names to entries of one kind. Entries cannot be replaced."""

    def __init__(self, kind: str):
        super().__init__()
        self.kind = kind

    def __missing__(self, name: str) -> T:
        raise unknown_name(self.kind, name, self)

    def __setitem__(self, name: str, entry: T) -> None:
        if name in self:
            raise InputError(f"there is already a {self.kind} called {name!r}")
        super().__setitem__(name, entry)

    def add(self, name: str, entry: T) -> T:
        """Add an entry and return it. Raises InputError if the name is taken."""
        self[name] = entry
        return entry

    def register(self, name: str) -> Callable[[T], T]:
        """Return a decorator that adds its argument: `@model_registry.register("small-cnn")`."""
        return lambda entry: self.add(name, entry)
