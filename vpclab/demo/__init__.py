"""The demo: a VPC, two nodes, pods, and proofs with packets."""
