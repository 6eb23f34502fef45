"""The language model: tokenizer, records, batches, model, training, evaluation, generation. Imports no other package of
this repository."""
