"""Input data: data frames, validation, samples with weights, and standardization."""
