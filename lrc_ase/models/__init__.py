"""Full-range models: descriptors, the long-range part, read-out, ensembles and derivatives."""
