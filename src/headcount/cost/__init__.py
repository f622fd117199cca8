"""What a model costs: parameters, bytes, FLOPs, as sums of named terms."""
