"""A tokenizer looked at: a text as it cuts it, what it spends where, in the terminal and as one page."""
