"""What is done to a network: freezing, BatchNorm statistics, averages, fingerprints."""
