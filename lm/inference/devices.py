"""The devices that a trained model is evaluated and sampled on."""

import jax
from jax.sharding import Mesh

from lm.config import MeshConfig, ModelConfig
from lm.errors import UsageError
from lm.parallel import make_mesh, one_device_mesh


def inference_mesh(config: MeshConfig, model: ModelConfig) -> tuple[Mesh, str]:
    """(a mesh of all devices, as `config` shares them; "", or why it is of one device alone: `config` does not fit
    those that are here).

    Raises UsageError where it does not fit the devices of several processes: each of them holds a part of the model.
    """
    try:
        return make_mesh(config, model, batch_size=jax.device_count()), ""  # rows are filled up to whatever shares them
    except UsageError as error:
        if jax.process_count() > 1:
            raise
        return one_device_mesh(model), str(error)
