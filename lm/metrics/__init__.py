"""What a run says of itself: throughput, terminal, metrics.jsonl, TensorBoard, Weights & Biases, profiles.

May import: nothing of lm but its top modules.
"""
