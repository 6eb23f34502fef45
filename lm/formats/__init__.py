"""Read and write models in other programs' formats: safetensors, Hugging Face.

May import: lm.checkpoints, lm.model, lm.tokenizer.
"""
