"""Stands in for kube-controller-manager: Deployments, ReplicaSets and horizontal pod autoscalers."""
