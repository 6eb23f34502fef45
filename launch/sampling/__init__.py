"""Texts on the side of a run: what continues prompts, printed as it is drawn, and a conversation with the keyboard."""
