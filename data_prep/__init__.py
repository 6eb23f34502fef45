"""Convert web pages to token shards. Imports no jax; from lm, only lm.tokenizer, lm.chat, lm.data.records, lm.storage,
lm.errors, lm.fields and lm.trusted_code."""
