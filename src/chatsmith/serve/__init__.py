"""The page and the API over HTTP. It reaches a model through the engine alone."""
