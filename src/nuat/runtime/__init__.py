"""The machine nuat runs on: device, processes, memory, threads, files, progress, versions."""
