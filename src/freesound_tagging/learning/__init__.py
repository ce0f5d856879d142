"""Stored spectrograms -> DataLoaders -> Learner."""
