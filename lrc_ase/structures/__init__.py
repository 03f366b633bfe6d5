"""Structures as a model sees them: graphs, neighbors, and the domain of the training set."""
