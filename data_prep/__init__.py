"""From web pages to token shards. No jax here; of lm, only lm.tokenizer, lm.records and lm.errors."""
