"""Treatment as an input, treatment effects as an output, with what allows them to be called effects."""
