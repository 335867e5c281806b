"""Operations on a model: freezing, BatchNorm statistics, EMAs, weight perturbation, checks."""
