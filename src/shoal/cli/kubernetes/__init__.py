"""What commands do on Kubernetes."""
