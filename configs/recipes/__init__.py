"""Parts that several configs share: recipes for documents, model families, the demo's pages."""
