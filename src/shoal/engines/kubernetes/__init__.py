"""The engine on Kubernetes: native objects in one namespace, applied server-side, watched, and never listed again."""
