"""Files: potentials, those shipped with the package among them, and the means to read and write files safely."""
