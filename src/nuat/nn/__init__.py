"""Operations on a network: freezing, BatchNorm statistics, EMAs, weight perturbation, checks."""
