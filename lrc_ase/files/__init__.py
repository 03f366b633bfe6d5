"""Files of potentials, those shipped with the package among them."""
