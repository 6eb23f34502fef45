"""A ladder of small models looked at: losses, the law that fits them, and N and D for a budget, as one page."""
