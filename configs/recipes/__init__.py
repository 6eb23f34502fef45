"""What several configs share: the recipe for documents, the families of models, the demo's pages."""
