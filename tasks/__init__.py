"""One file a step of the deploy, and the steps that an operator runs alone."""
