"""How nuat runs here: device, ranks, files, memory, progress, versions."""
