"""Text to values and back: registries, parsing, overrides and serialization."""
