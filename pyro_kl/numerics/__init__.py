"""Functions of tensors: nothing here knows a distribution."""
