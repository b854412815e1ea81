"""A Kubernetes cluster of the real programs in the embedded VPC. Shell."""
