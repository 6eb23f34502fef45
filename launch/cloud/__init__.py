"""Runs on hardware that is rented or shared: files and commands for gcloud, kubectl, sbatch and sky, shown before they
are carried out. Imports configs and lm's tables of hardware; no jax. No cloud was reached from where this was written:
docs/cloud.md says what was checked, and how."""
