"""Read and write folders of Hugging Face's transformers: GPT-2, Llama, and our other models with custom code.

May import: lm.checkpoints, lm.model, lm.tokenizer, lm.formats.safetensors.
"""
