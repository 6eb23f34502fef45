"""From web pages to token shards. No jax here; of lm, only lm.tokenizer, lm.data.records, lm.storage, lm.errors and
lm.fields."""
