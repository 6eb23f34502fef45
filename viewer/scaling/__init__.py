"""Page of a ladder of small models: losses, the fitted law, and N and D for a budget."""
