"""Documents that were there before."""
