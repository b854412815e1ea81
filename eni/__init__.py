"""The VPC as this node sees it: model, limits, errors, and the EC2 and IMDS clients. Pure."""
