"""Slow, plain transcriptions of published training iterations, for tests to compare nuat with."""
