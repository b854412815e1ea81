"""What would happen, without AWS: a model of EC2 that nodes can be run against. Pure."""
