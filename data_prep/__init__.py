"""Convert web pages to token shards. Imports no jax; from lm, only lm.tokenizer, lm.data.records, lm.storage, lm.errors
and lm.fields."""
