"""Read and write folders of Hugging Face's transformers: GPT-2, Llama, and our other models with custom code.

May import: lm.checkpoints, lm.model, lm.tokenizer, lm.formats.safetensors.
"""

from lm.formats.hugging_face.config import model_config_of, special_ids
from lm.formats.hugging_face.names import stored_tensors
from lm.formats.hugging_face.writing import write_hugging_face
