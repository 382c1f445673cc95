"""Serves external.metrics.k8s.io/v1beta1: the load and demand of pools of Celery workers."""
