"""Inspect a trained model: predictions, attention, and the prediction of each layer. For notebooks, and for the
server's /v1/inspect. Returns named arrays, captured by taps in the model's only forward pass."""
