"""Registries: what the names that people type stand for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from nuat.errors import InputError, unknown_name

T = TypeVar("T")


class Registry(Mapping[str, T]):
    """A mapping from names to entries of one kind. Entries cannot be replaced."""

    def __init__(self, kind: str):
        self.kind = kind
        self._entries: dict[str, T] = {}

    def add(self, name: str, entry: T) -> T:
        """Add an entry and return it. Raises InputError if the name is taken."""
        if name in self._entries:
            raise InputError(f"there is already a {self.kind} called {name!r}")
        self._entries[name] = entry
        return entry

    def register(self, name: str) -> Callable[[T], T]:
        """A decorator that adds what it decorates: `@model_registry.register("small-cnn")`."""
        return lambda entry: self.add(name, entry)

    def __getitem__(self, name: str) -> T:
        if name not in self._entries:
            raise unknown_name(self.kind, name, self._entries)
        return self._entries[name]

    def get(self, name: str, default: Any = None) -> Any:
        """The entry, or `default` if there is none. (Mapping.get expects a KeyError.)"""
        return self._entries.get(name, default)

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)
