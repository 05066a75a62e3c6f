"""What a Kubernetes cluster is told, and whether that can work: checked before it is sent."""
