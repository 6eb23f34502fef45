"""A trained model looked at: what it predicts, what it attends to, what each layer would say. For notebooks, and for
the server's /v1/inspect. Arrays with names; no second model, but the taps of the one forward pass."""
