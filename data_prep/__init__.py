"""From web pages to token shards. No jax here; of lm, only lm.tokenizer, lm.data.records and lm.errors."""
