"""The language model: tokenizer, records, batches, model, training, evaluation, generation. Imports nothing else of
ours."""
