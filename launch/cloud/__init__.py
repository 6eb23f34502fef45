"""Job files for clouds and clusters: Slurm, TPU VMs, Kubernetes, SkyPilot. Each script fills a template and prints the
command that submits it; none of them calls a cloud. docs/cloud.md describes the tests."""
