"""Job files for rented or shared hardware: Slurm, TPU VMs, Kubernetes, SkyPilot. Each script fills one template and
prints the command that submits it; none of them calls a cloud. docs/cloud.md says what was checked, and how."""
