"""Reinforcement learning with verifiable rewards: a model samples answers, a task checks them, and the likelihood of
better ones is raised.

tasks.py has the tasks, sampler.py samples the batches of the training loop, and scoring.py computes log-probabilities
exactly as the engine did.

May import: all packages of lm but lm.planner and lm.serving.
"""
