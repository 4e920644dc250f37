"""Model packages, the registry of architectures and the inference engine."""
