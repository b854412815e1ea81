"""What a cluster's pod network must do, one fact a check, by the API server alone. Shell.

One library with several doors: `make e2e` runs it on the lab's cluster, and nothing in it knows a
lab: whatever cluster a kubeconfig reaches will do.
"""
